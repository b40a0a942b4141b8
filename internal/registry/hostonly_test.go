package registry

import (
	"testing"

	"oras.land/oras-go/v2/registry/remote/auth"

	"uenv-ci.dev/internal/fault"
)

// A registry that somebody else has chosen gets no password that is not for it.
func TestHostOnlyCredentials(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	environ := map[string]string{"UENV_CI_REGISTRY_USERNAME": "me", "UENV_CI_REGISTRY_PASSWORD": "secret"}
	c := Credentials{Getenv: func(name string) string { return environ[name] }}
	for _, hostOnly := range []bool{false, true} {
		c.HostOnly = hostOnly
		find, err := c.lookup("r.example.org", Options{})
		if err != nil {
			t.Fatal(err)
		}
		cred, err := find(t.Context(), "r.example.org")
		if err != nil || (cred == auth.EmptyCredential) != hostOnly {
			t.Errorf("host only %v: got %+v, %v", hostOnly, cred, err)
		}
	}
	c.TokenFile = "token"
	if _, err := c.lookup("r.example.org", Options{}); fault.KindOf(err) != fault.Usage || fault.HintOf(err) == "" {
		t.Errorf("token: got %v", err)
	}
}
