// Package starter writes what people begin with: a recipe that lints, configures and
// builds as it is, and a site file that shows all of its keys.
package starter

import (
	"bytes"
	"embed"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

//go:embed templates
var templates embed.FS

// Recipe is a recipe to be written.
type Recipe struct {
	Dir     string // must not exist, or be empty
	Name    string
	Version string // of the user environment, for texts: recipes do not have one
	Format  int    // 1 or 2; 0 is that of the script builder
}

// Write makes the directory, with all files or not at all, and returns the names of
// the files in it. One in which something is already has kind Refused.
func (r Recipe) Write() ([]string, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	exists, err := r.isFree()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		names = append(names, f.name)
	}
	return names, fault.Wrap(fault.Failure, place(r.Dir, exists, files), "make %s", r.Dir)
}

// place writes files into a directory, all of them before any has its final name. One
// that exists stays itself: somebody may be in it.
func place(dir string, exists bool, files []file) error {
	parent := dir
	if !exists {
		parent = filepath.Dir(filepath.Clean(dir))
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp(parent, ".uenv-ci-init-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, f := range files {
		if err := f.write(work); err != nil {
			return err
		}
	}
	if !exists {
		if err := os.Chmod(work, 0o755); err != nil {
			return err
		}
		return os.Rename(work, dir)
	}
	entries, err := os.ReadDir(work)
	for _, e := range entries {
		if err == nil {
			err = os.Rename(filepath.Join(work, e.Name()), filepath.Join(dir, e.Name()))
		}
	}
	return err
}

func (r Recipe) check() error {
	for what, text := range map[string]string{"name": r.Name, "version": r.Version} {
		if !label.Valid(text) || !label.RegistryPath(text) {
			err := fault.New(fault.Usage, "%q cannot be the %s of a uenv", text, what)
			return fault.WithHint(err, "%s", label.RegistryHint)
		}
	}
	if r.Format < 0 || r.Format > 2 {
		return fault.New(fault.Usage, "there is no example of format %d: it is 1 or 2", r.Format)
	}
	return nil
}

// isFree tells whether the directory exists. It refuses one with anything in it, and
// what is no directory.
func (r Recipe) isFree() (exists bool, err error) {
	entries, err := os.ReadDir(r.Dir)
	switch {
	case err == nil && len(entries) > 0:
		err := fault.New(fault.Refused, "%s is not empty: nothing is overwritten", r.Dir)
		return true, fault.WithHint(err, "name a new directory")
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return err == nil, nil
	}
	if _, statErr := os.Lstat(r.Dir); statErr == nil {
		return true, fault.New(fault.Refused, "%s is there already, and no directory that could be used: %w", r.Dir, err)
	}
	return false, fault.Wrap(fault.Failure, err, "look at %s", r.Dir)
}

// file is a file of the recipe.
type file struct {
	name string
	text []byte
	mode fs.FileMode
}

func (f file) write(dir string) error {
	name := filepath.Join(dir, filepath.FromSlash(f.name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return atomicfile.WriteBytes(name, f.mode, f.text)
}

// files renders the templates, in the order of their names.
func (r Recipe) files() ([]file, error) {
	root := "templates/script"
	if r.Format > 0 {
		root = "templates/spack-" + strconv.Itoa(r.Format)
	}
	var files []file
	err := fs.WalkDir(templates, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := render(name, r)
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(text, []byte("#!")) {
			mode = 0o755
		}
		files = append(files, file{strings.TrimPrefix(name, root+"/"), text, mode})
		return err
	})
	return files, fault.Wrap(fault.Failure, err, "write the example")
}

// WriteSite writes a site file that shows all keys. The registry is entered if it is
// given. A file that is there already has kind Refused.
func WriteSite(name, registry string) error {
	if _, err := os.Lstat(name); err == nil {
		return fault.New(fault.Refused, "%s is there already: nothing is overwritten", name)
	}
	text, err := render("templates/site.yaml", struct{ Registry string }{registry})
	if err == nil {
		err = atomicfile.WriteBytes(name, 0o644, text)
	}
	return fault.Wrap(fault.Failure, err, "write %s", name)
}

func render(name string, data any) ([]byte, error) {
	text, err := templates.ReadFile(name)
	if err != nil {
		return nil, err
	}
	t, err := template.New(path.Base(name)).Funcs(template.FuncMap{"yaml": scalar, "upper": variable}).Option("missingkey=error").Parse(string(text))
	var out bytes.Buffer
	if err == nil {
		err = t.Execute(&out, data)
	}
	return out.Bytes(), err
}

// plainText matches what YAML 1.1 reads as text without quotes.
var plainText = regexp.MustCompile(`^[a-z][a-z0-9]+([-/ ][a-z0-9.]+)*$`)

// scalar writes a text for YAML.
func scalar(text string) string {
	switch text {
	case "yes", "no", "on", "off", "true", "false", "null":
	default:
		if plainText.MatchString(text) {
			return text
		}
	}
	return strconv.Quote(text)
}

// variable is the name of an environment variable for a uenv.
func variable(name string) string {
	return strings.ToUpper(strings.Map(func(c rune) rune {
		if c == '-' || c == '.' {
			return '_'
		}
		return c
	}, name))
}
