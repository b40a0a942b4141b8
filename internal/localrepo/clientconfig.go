package localrepo

import (
	"bufio"
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/fault"
)

const (
	systemConfig = "/etc/uenv"
	configLimit  = 1 << 20
)

// clientConfig is what the uenv client's own configuration says.
type clientConfig struct {
	repo   *Location  // in place of the default search
	others []Location // searched as well
	rest   ClientSettings
}

// ClientSettings is what the uenv client's own configuration says of other things
// than local repositories; "" stands for nothing.
type ClientSettings struct {
	System   string // that labels mean which name none; * is every one
	Registry string // [http://|https://]HOST[:PORT][/PREFIX]
	Listing  string // URL of the listing of images in that registry
}

// ReadClientSettings reads the client's configuration files: those of the user,
// then those of the machine.
func ReadClientSettings(getenv func(string) string) (ClientSettings, error) {
	c, err := readClientConfig(getenv)
	return c.rest, err
}

// readClientConfig reads the client's configuration files. Version 10 reads
// config.toml and writes the user's on its first run; where there is one, the
// older "key = value" file beside it is out of use. What else the files say, and
// keys that we do not know, are the client's concern.
func readClientConfig(getenv func(string) string) (clientConfig, error) {
	var c clientConfig
	user := getenv("XDG_CONFIG_HOME")
	if user == "" && getenv("HOME") != "" {
		user = filepath.Join(getenv("HOME"), ".config")
	}
	if user != "" {
		dir := filepath.Join(user, "uenv")
		if err := c.read(filepath.Join(dir, "config.toml"), filepath.Join(dir, "config"), getenv); err != nil {
			return c, err
		}
	}
	if file := getenv("UENV_SYSTEM_CONFIG"); file != "" { // in place of both
		return c, c.read("", file, getenv)
	}
	return c, c.read(filepath.Join(systemConfig, "config.toml"), filepath.Join(systemConfig, "config"), getenv)
}

// read takes from one level of configuration what the levels before left unset.
func (c *clientConfig) read(newFile, oldFile string, getenv func(string) string) error {
	lines, found, err := readLines(newFile)
	if err != nil {
		return err
	}
	if found {
		c.others = append(c.others, tomlRepositories(newFile, lines, getenv)...)
		c.rest = c.rest.or(tomlSettings(lines))
		return nil
	}
	lines, _, err = readLines(oldFile)
	if err != nil {
		return err
	}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) == "repo" && strings.TrimSpace(value) != "" && c.repo == nil {
			path := expand(strings.TrimSpace(value), getenv)
			c.repo = &Location{Name: "default", Path: path, Priority: priorityDefault, Source: oldFile, Default: true}
		}
	}
	return nil
}

// readLines returns the lines of a small text file. The name may be empty.
func readLines(path string) (lines []string, found bool, err error) {
	if path == "" {
		return nil, false, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fault.Wrap(fault.Failure, err, "read the uenv client's configuration")
	}
	if !info.Mode().IsRegular() || info.Size() > configLimit {
		return nil, false, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, false, fault.Wrap(fault.Failure, err, "read the uenv client's configuration")
	}
	scanner := bufio.NewScanner(strings.NewReader(string(data)))
	scanner.Buffer(nil, configLimit)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return lines, true, scanner.Err()
}

var tomlEntry = regexp.MustCompile(`^\s*(name|path|priority)\s*=\s*(?:"([^"\\]*)"|'([^']*)'|(\d+))\s*(?:#.*)?$`)

// tomlRepositories picks the [[repositories]] tables out of a configuration of
// version 10: flat tables of plain strings and numbers, the only form it accepts.
func tomlRepositories(source string, lines []string, getenv func(string) string) []Location {
	var all []Location
	inside := false
	for _, line := range lines {
		text, _, _ := strings.Cut(line, "#")
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "[") {
			inside = strings.ReplaceAll(text, " ", "") == "[[repositories]]"
			if inside {
				all = append(all, Location{Priority: priorityOther, Source: source})
			}
			continue
		}
		m := tomlEntry.FindStringSubmatch(line)
		if !inside || m == nil {
			continue
		}
		last, value := &all[len(all)-1], m[2]+m[3]
		switch m[1] {
		case "name":
			last.Name = value
		case "path":
			last.Path = expand(value, getenv)
		case "priority":
			if n, err := strconv.Atoi(m[4]); err == nil {
				last.Priority = n
			}
		}
	}
	return withPath(all)
}

var tomlSetting = regexp.MustCompile(`^\s*(system_name|url|listing_url)\s*=\s*(?:"([^"\\]*)"|'([^']*)')\s*(?:#.*)?$`)

// tomlSettings picks system_name and the table [registry] out of a configuration of
// version 10.
func tomlSettings(lines []string) ClientSettings {
	var s ClientSettings
	table := ""
	for _, line := range lines {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "[") {
			text, _, _ = strings.Cut(text, "#")
			table = strings.ReplaceAll(text, " ", "")
			continue
		}
		m := tomlSetting.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		switch value := m[2] + m[3]; table + m[1] {
		case "system_name":
			s.System = value
		case "[registry]url":
			s.Registry = value
		case "[registry]listing_url":
			s.Listing = value
			if !strings.Contains(value, "://") {
				s.Listing = "https://" + value
			}
		}
	}
	return s
}

// or returns s with what it lacks taken from another level. A registry and its
// listing go together.
func (s ClientSettings) or(other ClientSettings) ClientSettings {
	s.System = cmp.Or(s.System, other.System)
	if s.Registry == "" {
		s.Registry, s.Listing = other.Registry, other.Listing
	}
	return s
}

func withPath(all []Location) []Location {
	var kept []Location
	for _, l := range all {
		if l.Path != "" {
			kept = append(kept, l)
		}
	}
	return kept
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${NAME}; an unset variable becomes empty, as in the client.
func expand(s string, getenv func(string) string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string { return getenv(m[2 : len(m)-1]) })
}
