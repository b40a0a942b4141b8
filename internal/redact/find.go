package redact

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxCredentials bounds the size of a file that is searched for secrets.
const maxCredentials = 64 << 10

// secretName matches one word of the name of a variable that holds a secret.
var secretName = regexp.MustCompile(`(?i)(^|_)(.*TOKEN|PASS|.*PASSWORD|PASSWD|.*PASSPHRASE|.*SECRET|CREDENTIALS?|AUTH|APIKEY|(API|ACCESS|PRIVATE|SIGNING|SSH|GPG)_KEY|JWT)(_|$)`)

func isSecretName(name string) bool { return secretName.MatchString(name) && name != "SSH_AUTH_SOCK" }

// usualCredentials are the files that programs of registries and of git read.
func usualCredentials() []string {
	home, _ := os.UserHomeDir()
	files := []string{
		os.Getenv("REGISTRY_AUTH_FILE"), os.Getenv("NETRC"),
		filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"),
	}
	if home != "" {
		for _, name := range []string{".docker/config.json", ".netrc", ".git-credentials", ".config/containers/auth.json"} {
			files = append(files, filepath.Join(home, name))
		}
	}
	return files
}

// secretsIn returns the secrets in a file, none if it cannot be read.
func secretsIn(file string) []string {
	info, err := os.Stat(file)
	if err == nil && info.IsDir() {
		file = filepath.Join(file, "TOKEN") // as in the uenv client's convention
		info, err = os.Stat(file)
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxCredentials {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var document any
	if json.Unmarshal(data, &document) == nil {
		if _, isText := document.(string); !isText {
			return secretsInJSON("", document)
		}
	}
	text := strings.TrimSpace(string(data))
	if found := netrcPassword.FindAllStringSubmatch(text, -1); found != nil {
		var secrets []string
		for _, m := range found {
			secrets = append(secrets, m[1])
		}
		return secrets
	}
	secrets := append(secretsInURLs(text), text) // git's own file has a URL a line
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); len(line) >= 2*minSecret && !strings.HasPrefix(line, "-----") {
			secrets = append(secrets, line)
		}
	}
	return secrets
}

// urlSecret matches the password of a URL, or a token that stands for the user. With a
// slash in the password it looks like a port that is no number.
var urlSecret = regexp.MustCompile(`(?i)https?://(?:(?:[^/@\s:]*:)?([^/\s]+)|[^/@\s:\[]*:(\d*[^/@\s\d][^@\s]*))@`)

// secretsInURLs returns the passwords and tokens in the URLs of a text, as they are
// there and as they are meant.
func secretsInURLs(text string) []string {
	var secrets []string
	for _, m := range urlSecret.FindAllStringSubmatch(text, -1) {
		secret := cmp.Or(m[1], m[2])
		secrets = append(secrets, secret)
		if plain, err := url.PathUnescape(secret); err == nil && plain != secret {
			secrets = append(secrets, plain)
		}
	}
	return secrets
}

var (
	netrcPassword = regexp.MustCompile(`\bpassword\s+(\S+)`)
	secretKey     = regexp.MustCompile(`(?i)auth$|token|password|secret|key$`)
)

// secretsInJSON returns the values of telling keys, as in a docker configuration.
func secretsInJSON(key string, value any) []string {
	var secrets []string
	switch v := value.(type) {
	case map[string]any:
		for k, item := range v {
			secrets = append(secrets, secretsInJSON(k, item)...)
		}
	case []any:
		for _, item := range v {
			secrets = append(secrets, secretsInJSON(key, item)...)
		}
	case string:
		if !secretKey.MatchString(key) {
			return nil
		}
		secrets = append(secrets, v)
		if plain, err := base64.StdEncoding.DecodeString(v); err == nil {
			_, password, _ := strings.Cut(string(plain), ":")
			secrets = append(secrets, password)
		}
	}
	return secrets
}
