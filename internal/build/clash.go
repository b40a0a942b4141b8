package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

// Clash is files that two packages of a view have with different content. Spack
// links the one that it comes to first, and says nothing.
type Clash struct {
	View string `json:"view"`
	// Kept is the package whose files the view has, Lost the one whose files of the
	// same names it has not. Kept is "" where Spack has copied and not linked.
	Kept  string   `json:"kept,omitempty"`
	Lost  string   `json:"lost"`
	Paths []string `json:"paths,omitempty"` // of the view, the first ten; none if the image is restricted
	Files int      `json:"files"`           // how many there are
}

const maxClashPaths = 10

func (c Clash) String() string {
	what, more := "files", ""
	if len(c.Paths) > 0 {
		what = c.Paths[0]
	}
	if c.Files > 1 {
		more = fmt.Sprintf(" (%d files like this)", c.Files)
	}
	if c.Kept == "" {
		return fmt.Sprintf("view %s: %s is in %s and in another package, and differs%s", c.View, what, c.Lost, more)
	}
	return fmt.Sprintf("view %s: %s is that of %s, %s has another%s", c.View, what, c.Kept, c.Lost, more)
}

const clashHint = "exclude one of the packages from the view, name those that it shall have with 'select', or tell them apart with 'projections'"

// checkView tells of the clashes in a view as Spack has made it.
func (b *spackBuild) checkView(ctx context.Context, v stack.View) error {
	root, ok := locate(b.cell.stored, b.mount(), v.Root)
	if !ok {
		return fmt.Errorf("%s is a link that leads out of the store", v.Root)
	}
	f := clashFinder{ctx: ctx, store: b.cell.stored, mount: b.mount(), root: root, specs: b.specs, first: map[string]int{}, more: map[string][]int{}}
	found, err := f.find(v.Name)
	if err != nil {
		return fmt.Errorf("look for files that packages have in common: %w", err)
	}
	var said []string
	for i, c := range found {
		if b.Restricted {
			c.Paths, found[i].Paths = nil, nil
		}
		said = append(said, c.String())
	}
	b.report.Clashes = append(b.report.Clashes, found...)
	if len(found) > 0 && b.StrictViews {
		return (&Failure{Class: classView, Message: strings.Join(said, "\n"), Hint: clashHint}).fault()
	}
	for _, text := range said {
		b.Events.Warn("views", "%s", text)
	}
	if len(said) > 0 {
		b.Events.Info("views", "%s", clashHint)
	}
	return nil
}

// clashFinder looks for files that several packages of a view have, by what Spack
// left behind: the links of the view, and its directories .spack, which record which
// package was projected where.
type clashFinder struct {
	ctx      context.Context
	store    foreign
	mount    string
	root     string                // of the view, in the store
	specs    map[string]spack.Spec // by hash
	packages []viewPackage
	first    map[string]int   // the package that a path of the view was found in first
	more     map[string][]int // all packages of a path that is in several
}

// viewPackage is a package in a view.
type viewPackage struct {
	name   string // and version
	prefix string // in the store
	at     string // its directory in the view
}

func (f *clashFinder) find(view string) ([]Clash, error) {
	if err := f.findPackages(); err != nil {
		return nil, err
	}
	for i, p := range f.packages {
		if err := f.addFiles(i, p.prefix, ""); err != nil {
			return nil, err
		}
	}
	var found []Clash
	for _, name := range slices.Sorted(maps.Keys(f.more)) {
		found = f.compare(found, view, name)
	}
	return found, nil
}

// findPackages finds the packages of the view: where D/.spack/NAME is, NAME was
// projected to D, and the links there lead to its prefix.
func (f *clashFinder) findPackages() error {
	return fs.WalkDir(f.store.FS(), f.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() || d.Name() != ".spack" {
			return f.ctx.Err()
		}
		entries, err := fs.ReadDir(f.store.FS(), name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			target, err := f.store.Readlink(path.Join(name, e.Name(), "spec.json"))
			prefix, ok := strings.CutSuffix(target, "/.spack/spec.json")
			if err != nil || !ok {
				continue // not what Spack makes
			}
			if prefix, ok = locate(f.store, f.mount, prefix); ok {
				at := strings.TrimPrefix(strings.TrimPrefix(path.Dir(name), f.root), "/")
				f.packages = append(f.packages, viewPackage{f.label(e.Name(), prefix), prefix, at})
			}
		}
		return fs.SkipDir
	})
}

// label returns the name and version of a package. Its hash ends its prefix.
func (f *clashFinder) label(name, prefix string) string {
	if spec, ok := f.specs[prefix[strings.LastIndex(prefix, "-")+1:]]; ok {
		return spec.Name + "-" + spec.Version
	}
	return name
}

// addFiles notes what a package has in a directory, and below it. As with Spack, a link to
// a directory of the package counts as that directory if it is near the top.
func (f *clashFinder) addFiles(owner int, dir, at string) error {
	entries, err := fs.ReadDir(f.store.FS(), dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == ".spack" {
			continue
		}
		below, name := path.Join(dir, e.Name()), path.Join(at, e.Name())
		if e.Type()&fs.ModeSymlink != 0 && strings.Count(name, "/") <= 1 {
			below = f.linkedDir(below)
		} else if !e.IsDir() {
			below = ""
		}
		if below != "" {
			if err := f.addFiles(owner, below, name); err != nil {
				return err
			}
			continue
		}
		f.add(owner, path.Join(f.packages[owner].at, name))
	}
	return f.ctx.Err()
}

// linkedDir returns the directory beside or below a link that it leads to, "" if it
// leads elsewhere.
func (f *clashFinder) linkedDir(link string) string {
	target, ok := locate(f.store, f.mount, path.Join(f.mount, link))
	if !ok || !pathcheck.Within(target, path.Dir(link)) || target == path.Dir(link) {
		return ""
	}
	if info, err := f.store.Lstat(target); err != nil || !info.IsDir() {
		return ""
	}
	return target
}

func (f *clashFinder) add(owner int, name string) {
	first, ok := f.first[name]
	switch {
	case !ok:
		f.first[name] = owner
	case f.more[name] == nil:
		f.more[name] = []int{first, owner}
	default:
		f.more[name] = append(f.more[name], owner)
	}
}

// compare adds the clash at a path of the view, if it is one.
func (f *clashFinder) compare(found []Clash, view, name string) []Clash {
	owners := f.more[name]
	kept := owners[0]
	link, err := f.store.Readlink(path.Join(f.root, name))
	linked := slices.IndexFunc(owners, func(i int) bool { return pathcheck.Within(link, path.Join(f.mount, f.packages[i].prefix)) })
	if linked >= 0 {
		kept = owners[linked]
	}
	for _, other := range owners {
		if other == kept || f.alike(name, kept, other) {
			continue
		}
		c := Clash{View: view, Kept: f.packages[kept].name, Lost: f.packages[other].name}
		if err != nil || linked < 0 {
			c.Kept = ""
		}
		i := slices.IndexFunc(found, func(e Clash) bool { return e.Kept == c.Kept && e.Lost == c.Lost })
		if i < 0 {
			i, found = len(found), append(found, c)
		}
		if found[i].Files++; len(found[i].Paths) < maxClashPaths {
			found[i].Paths = append(found[i].Paths, name)
		}
	}
	return found
}

// alike tells whether it does not matter which of two packages' files a view has.
func (f *clashFinder) alike(name string, a, b int) bool {
	if harmless.MatchString(name) {
		return true
	}
	one, other := f.file(a, name), f.file(b, name)
	if one == other {
		return true
	}
	return f.sameContent(one, other) || namespaceFile.MatchString(name) && f.onlyNamespace(one) && f.onlyNamespace(other)
}

// file returns what a path of the view is in a package: its name in the store, or
// where it leads out of there.
func (f *clashFinder) file(owner int, name string) string {
	p := f.packages[owner]
	file := path.Join(p.prefix, strings.TrimPrefix(strings.TrimPrefix(name, p.at), "/"))
	if target, ok := locate(f.store, f.mount, path.Join(f.mount, file)); ok {
		return target
	}
	if target, err := f.store.Readlink(file); err == nil && path.IsAbs(target) {
		return target
	}
	return file
}

// sameContent compares two regular files of the store.
func (f *clashFinder) sameContent(a, b string) bool {
	one, err := f.store.open(a)
	if err != nil {
		return false
	}
	defer one.Close()
	other, err := f.store.open(b)
	if err != nil {
		return false
	}
	defer other.Close()
	return sameBytes(one, other)
}

func sameBytes(a, b *os.File) bool {
	infoA, errA := a.Stat()
	infoB, errB := b.Stat()
	if errA != nil || errB != nil || infoA.Size() != infoB.Size() {
		return false
	}
	if os.SameFile(infoA, infoB) {
		return true
	}
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false
		}
		if errA != nil || errB != nil {
			return errA == errB && (errA == io.EOF || errA == io.ErrUnexpectedEOF)
		}
	}
}

// harmless are files that many packages have, and for which it does not matter which
// package's file a view links: texts about the package, indexes that every installation
// rewrites, byte code of a file that is itself compared.
var harmless = regexp.MustCompile(`(^|/)(` + strings.Join([]string{
	`(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|README|AUTHORS|NEWS|CHANGES|CHANGELOG|CONTRIBUTORS|THANKS|TODO)([-._][^/]*)?`,
	`(share/)?info/dir`, `__pycache__/[^/]*`, `perllocal\.pod`, `easy-install\.pth`, `setuptools\.pth`,
	`gschemas\.compiled`, `icon-theme\.cache`, `mimeinfo\.cache`, `giomodule\.cache`,
}, "|") + `)$`)

// namespaceFile is where Python has the file that makes a directory a namespace of
// several packages, which each of them has.
var namespaceFile = regexp.MustCompile(`(^|/)site-packages/[^/]+/__init__\.py$`)

var (
	pythonCode      = regexp.MustCompile(`(?m)^[^#\s]`)
	namespaceMaking = regexp.MustCompile(`extend_path|declare_namespace`)
)

const maxNamespaceFile = 4 << 10

// onlyNamespace tells whether a file of Python does nothing but that.
func (f *clashFinder) onlyNamespace(name string) bool {
	file, err := f.store.open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxNamespaceFile))
	if err != nil || len(text) == maxNamespaceFile {
		return false
	}
	return namespaceMaking.Match(text) || !pythonCode.Match(text)
}
