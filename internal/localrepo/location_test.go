package localrepo

import (
	"os"
	"path/filepath"
	"testing"
)

// home makes a home directory with files and returns an environment for it.
func home(t *testing.T, files map[string]string) (dir string, getenv func(string) string, env map[string]string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env = map[string]string{"HOME": dir, "USER": "nobody-has-this-name", "UENV_SYSTEM_CONFIG": filepath.Join(dir, "system")}
	return dir, func(name string) string { return env[name] }, env
}

func defaultPath(t *testing.T, getenv func(string) string) string {
	t.Helper()
	locations, err := Locations(getenv)
	if err != nil || len(locations) == 0 {
		t.Fatal(locations, err)
	}
	return locations[0].Path
}

func TestDefaultPath(t *testing.T) {
	dir, getenv, env := home(t, nil)
	at := func(want string) {
		t.Helper()
		if got := defaultPath(t, getenv); got != filepath.Join(dir, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	at(".uenv/repo")
	env["SCRATCH"] = filepath.Join(dir, "scratch")
	at(".uenv/repo") // there is no such scratch
	if err := os.Mkdir(env["SCRATCH"], 0o755); err != nil {
		t.Fatal(err)
	}
	at("scratch/.uenv-images")
	env["CLUSTER_NAME"] = "daint" // where the client does not look at $SCRATCH
	at(".uenv/repo")
	env["CLUSTER_NAME"] = "elsewhere"
	open(t, filepath.Join(dir, ".uenv/repo"))
	at(".uenv/repo") // one that exists goes before one that could be made
	clear(env)
	if locations, err := Locations(getenv); len(locations) > 0 || err != nil {
		t.Errorf("without HOME: %v, %v", locations, err)
	}
}

func TestClientConfiguration(t *testing.T) {
	const toml = `# uenv configuration file
color = true
[[repositories]]
name = 'team' # of mine
path = '/store/${USER}/repo'
[elastic]
path = "/not/a/repository"
[[ repositories ]]
path = "/first"
name = "first"
priority = 3
[[repositories]]
name = "without path"
`
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"user":           {map[string]string{".config/uenv/config": "# x\ncolor=true\nrepo = ${HOME}/mine\nodd = 1\n", "system": "repo=/theirs"}, []string{"HOME/mine"}},
		"system":         {map[string]string{"system": "repo=/theirs"}, []string{"/theirs"}},
		"commented":      {map[string]string{".config/uenv/config": "#repo = /no\nrepo=\n"}, []string{"HOME/.uenv/repo"}},
		"version 10":     {map[string]string{".config/uenv/config.toml": toml}, []string{"/first", "HOME/.uenv/repo", "/store/nobody-has-this-name/repo"}},
		"10 outdates 9":  {map[string]string{".config/uenv/config.toml": "color = true\n", ".config/uenv/config": "repo=/old"}, []string{"HOME/.uenv/repo"}},
		"not a text":     {map[string]string{".config/uenv/config.toml": "\x00\xff[[repositories]]path"}, []string{"HOME/.uenv/repo"}},
		"XDG is not set": {map[string]string{"xdg/uenv/config": "repo=/x"}, []string{"HOME/.uenv/repo"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, getenv, _ := home(t, c.files)
			locations, err := Locations(getenv)
			if err != nil || len(locations) != len(c.want) {
				t.Fatalf("%+v, %v", locations, err)
			}
			for i, want := range c.want {
				if len(want) > 4 && want[:4] == "HOME" {
					want = dir + want[4:]
				}
				if locations[i].Path != want {
					t.Errorf("location %d: %+v, want %s", i, locations[i], want)
				}
			}
		})
	}
	dir, getenv, env := home(t, map[string]string{"xdg/uenv/config": "repo=/x"})
	env["XDG_CONFIG_HOME"] = filepath.Join(dir, "xdg")
	if got := defaultPath(t, getenv); got != "/x" {
		t.Errorf("by XDG_CONFIG_HOME: %s", got)
	}
}

func TestClientSettings(t *testing.T) {
	const user = `system_name = 'santis'
[[repositories]]
url = "not/a/registry"
[ registry ] # of the site
url = "registry.example.org/uenv"
default_namespace = 'deploy'
listing_url = 'list.example.org/list' # without a scheme
[elastic]
url = "https://telemetry.example.org"
`
	whole := ClientSettings{System: "santis", Registry: "registry.example.org/uenv", Listing: "https://list.example.org/list"}
	for text, want := range map[string]ClientSettings{
		user: whole,
		"":   {},
		"[registry]\nurl = \"http://127.0.0.1:5000\"\nlisting_url = \"http://127.0.0.1/list\"\nsystem_name = \"x\"\n": {Registry: "http://127.0.0.1:5000", Listing: "http://127.0.0.1/list"},
		"url = \"x\"\nsystem_name = '*'\n": {System: "*"},
		"\x00\xff[registry]url":            {},
	} {
		_, getenv, _ := home(t, map[string]string{".config/uenv/config.toml": text})
		if got, err := ReadClientSettings(getenv); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	machine := ClientSettings{System: "daint", Registry: "other.example.org", Listing: "https://other.example.org/list"}
	if got := (ClientSettings{Registry: "own.example.org"}).or(machine); got != (ClientSettings{System: "daint", Registry: "own.example.org"}) {
		t.Errorf("a registry of the user with the listing of another: %+v", got)
	}
}
