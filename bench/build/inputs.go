package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/proc"
)

// demoInputs copies recipe demo-stack and cluster debian12 of the repository into a
// directory, changed in points that the make flow needs: its squashfs is one of the
// system; the compiler of the recipe lies below prefix, another one than that of the
// cluster, since Spack does not find one again that a scope has already and no view
// would have links to it (nor does it look through Debian's /usr/bin, if X11 has put
// a link to itself there); and there are no module files of gcc and squashfs, since
// the bootstrap compiler and the other one would have one name.
func demoInputs(root, dir, prefix string) (recipe, cluster string, err error) {
	recipe, cluster = filepath.Join(dir, "recipe"), filepath.Join(dir, "cluster")
	if err := os.CopyFS(recipe, os.DirFS(filepath.Join(root, "recipes/demo-stack/1.0"))); err != nil {
		return "", "", err
	}
	if err := os.CopyFS(cluster, os.DirFS(filepath.Join(root, "clusters/debian12"))); err != nil {
		return "", "", err
	}
	const external = "  squashfs:\n    buildable: false\n    externals:\n    - spec: squashfs@4.5.1 default_compression=zstd\n      prefix: /usr\n"
	for _, e := range []struct{ file, old, new string }{
		{recipe + "/modules.yaml", "exclude_implicits: true\n", "exclude_implicits: true\n      exclude: [gcc, squashfs]\n"},
		{cluster + "/packages.yaml", "packages:\n", "packages:\n" + external},
		{cluster + "/compilers.yaml", "gcc@=12.2.0", "gcc@=11.0.0"},
		{cluster + "/packages.yaml", "languages='c,c++'\n      prefix: /usr\n", "languages='c,c++'\n      prefix: " + prefix + "\n"},
	} {
		text, err := os.ReadFile(e.file)
		if err != nil {
			return "", "", err
		}
		if !strings.Contains(string(text), e.old) {
			return "", "", fmt.Errorf("%s has no %q", e.file, e.old)
		}
		if err := os.WriteFile(e.file, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o644); err != nil {
			return "", "", err
		}
	}
	return recipe, cluster, nil
}

// formatInputs are demoInputs as a recipe of format 2 or 3 that pins Spack 0.23: one
// package comes from a git repository beside Spack, compilers are packages.
func formatInputs(ctx context.Context, root, dir, prefix string, format int) (recipe, cluster string, err error) {
	recipe, cluster = filepath.Join(dir, "recipe"), filepath.Join(dir, "cluster")
	tables := filepath.Join(dir, "tables")
	packages := filepath.Join(tables, "repos/spack_repo/unit-tables/packages")
	data := filepath.Join(root, "bench/build/testdata")
	script := fmt.Sprintf(`
cp -r %[1]s/recipes/demo-stack/1.0 %[2]s
cp %[3]s/format%[4]d/* %[2]s
sed -i 's|TABLES|%[5]s|' %[2]s/config.yaml
sed -i 's|exclude_implicits: true|&\n      exclude: [gcc, squashfs]|' %[2]s/modules.yaml
cp -r %[3]s/cluster %[6]s
sed -i 's|/usr/bin/g|%[7]s/bin/g|g; s|prefix: /usr$|&|; 0,/prefix: .usr/s|prefix: /usr|prefix: %[7]s|' %[6]s/packages.yaml
printf '  squashfs:\n    buildable: false\n    externals:\n    - {spec: squashfs@4.5.1, prefix: /usr}\n' >> %[6]s/packages.yaml
mkdir -p %[8]s
mv %[2]s/repo/packages/units-data %[8]s
printf 'repo:\n  namespace: unit-tables\n' > %[8]s/../repo.yaml
git init -q -b main %[5]s
git -C %[5]s add .
git -C %[5]s -c user.name=test -c user.email=test@example.org commit -q -m tables
`, root, recipe, data, format, tables, cluster, prefix, packages)
	out, err := proc.Cmd{Path: "/bin/sh", Args: []string{"-exc", script}, Env: os.Environ()}.Output(ctx)
	if err != nil {
		err = fmt.Errorf("make the inputs: %w\n%s", err, out)
	}
	return recipe, cluster, err
}

// newPrefix makes a directory that looks as if the compiler were installed there,
// where both kinds of sandboxes show it. The caller removes it.
func newPrefix() (string, error) {
	place, err := visiblePlace()
	if err != nil {
		return "", err
	}
	prefix, err := os.MkdirTemp(place, "uenv-ci-gcc-")
	if err != nil {
		return "", err
	}
	err = errors.Join(os.Chmod(prefix, 0o755), os.Mkdir(filepath.Join(prefix, "bin"), 0o755))
	for _, name := range []string{"gcc", "g++"} {
		err = errors.Join(err, os.Symlink("/usr/bin/"+name, filepath.Join(prefix, "bin", name)))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(prefix))
	}
	return prefix, nil
}

// visiblePlace returns a directory that sandboxes do not hide: that of this program,
// if it is not below a home, or one for additional software.
func visiblePlace() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	hidden := []string{"/tmp", "/var/tmp", "/dev", "/run", "/root", "/home", home}
	for _, place := range []string{here, "/srv", "/opt"} {
		if slices.ContainsFunc(hidden, func(h string) bool { return strings.HasPrefix(place+"/", h+"/") }) {
			continue
		}
		if unix.Access(place, unix.W_OK) == nil {
			return place, nil
		}
	}
	return "", fmt.Errorf("no place that sandboxes show: %s is hidden, /srv and /opt cannot be written to", here)
}
