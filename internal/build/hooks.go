package build

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"uenv-ci.dev/internal/site"
)

// Hooks say what the recipe's own programs get besides what every program of a
// build has.
type Hooks struct {
	// Secrets are read-only credentials for sources, each for one hook. They are
	// given only to a build that is Protected.
	Secrets []site.HookSecret
	// Network names the hooks that may use the network.
	Network []string
}

// maxHookSecret bounds the size of a hook's secret.
const maxHookSecret = 64 << 10

// hookSecret is a variable for one hook.
type hookSecret struct{ hook, name, value string }

// readSecrets reads the secrets of the hooks.
func (o *Options) readSecrets() ([]hookSecret, error) {
	if len(o.Hooks.Secrets) == 0 {
		return nil, nil
	}
	if !o.Protected {
		o.Events.Warn("build", "hooks get no secrets: this build is not of a protected ref")
		return nil, nil
	}
	var secrets []hookSecret
	for _, s := range o.Hooks.Secrets {
		path, err := s.File.Get()
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the secret %s of the hook %s: %w", s.Env, s.Hook, err)
		}
		data, err := readTail(f, maxHookSecret)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read the secret %s of the hook %s: %w", s.Env, s.Hook, err)
		}
		secrets = append(secrets, hookSecret{s.Hook, s.Env, strings.TrimSpace(string(data))})
	}
	return secrets, nil
}

// secretsOf returns the variables for one hook.
func (j *job) secretsOf(hook string) []string {
	var env []string
	for _, s := range j.secrets {
		if s.hook == hook {
			env = append(env, s.name+"="+s.value)
		}
	}
	return env
}

// hookNetwork tells whether a hook may use the network.
func (j *job) hookNetwork(hook string) bool {
	return !j.AirGapped && (j.Network || slices.Contains(j.Hooks.Network, hook))
}
