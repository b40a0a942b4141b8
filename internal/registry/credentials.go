package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// Credentials say where the user name and password of a registry come from. The
// first source that has something for the registry wins: the token file, the
// explicit docker configuration, the environment (UENV_CI_REGISTRY_USERNAME and
// _PASSWORD, then CSCS_REGISTRY_USERNAME and _PASSWORD), the user's docker
// configuration with its credential helpers. In a job of CSCS's middleware
// (CSCS_CI_MW_URL, CI_JOB_TOKEN and CI_JOB_ID are set) its credentials service comes
// before the user's docker configuration. None at all means anonymous.
type Credentials struct {
	DockerConfig string // file in the form of docker's config.json; "" is the user's own
	TokenFile    string // file whose first line is the password, or a directory with such a file TOKEN
	Username     string // for the token file; "" is the login name
	// Getenv reads the environment; nil is os.Getenv.
	Getenv func(string) string
	// HostOnly uses nothing but docker configurations, which say for which host
	// a password is: for a registry that somebody else has chosen.
	HostOnly bool
}

// The pairs of variables that are read.
var credentialVariables = [][2]string{
	{"UENV_CI_REGISTRY_USERNAME", "UENV_CI_REGISTRY_PASSWORD"},
	{"CSCS_REGISTRY_USERNAME", "CSCS_REGISTRY_PASSWORD"},
}

// lookup returns the function that finds the credentials for host. What is
// explicit is read at once, so that a mistake shows before any work is done.
func (c Credentials) lookup(host string, o Options) (auth.CredentialFunc, error) {
	if c.TokenFile != "" && c.HostOnly {
		err := fault.New(fault.Usage, "a token goes only to a registry that you name yourself")
		return nil, fault.WithHint(err, "name it with --registry")
	}
	if c.TokenFile != "" {
		cred, err := c.token(o.Events)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", fileError(err))
		}
		return auth.StaticCredential(host, cred), nil
	}
	var explicit credentials.Store
	if c.DockerConfig != "" {
		if _, err := os.Stat(c.DockerConfig); err != nil {
			return nil, fmt.Errorf("read credentials: %w", fileError(err))
		}
		store, err := credentials.NewStore(c.DockerConfig, credentials.StoreOptions{})
		if err != nil {
			return nil, fault.New(fault.Invalid, "read credentials: %s: %w", c.DockerConfig, err)
		}
		explicit = store
	}
	return c.search(host, explicit, o.Retry), nil
}

// fileError gives errors of files that people name their kind.
func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Unauthorized, "%w", err)
	}
	return err
}

// search asks the sources in turn, when the registry first wants to know.
func (c Credentials) search(host string, explicit credentials.Store, retry RetryOptions) auth.CredentialFunc {
	return func(ctx context.Context, asking string) (auth.Credential, error) {
		if asking != host {
			return auth.EmptyCredential, nil
		}
		if explicit != nil {
			cred, err := fromStore(ctx, explicit, host)
			if err != nil || cred != auth.EmptyCredential {
				return cred, err
			}
		}
		if cred := c.fromEnvironment(); cred != auth.EmptyCredential && !c.HostOnly {
			return cred, nil
		}
		if explicit != nil {
			return auth.EmptyCredential, nil
		}
		if c.HostOnly {
			return fromDocker(ctx, host)
		}
		if cred, err := c.fromMiddleware(ctx, retry); err != nil || cred != auth.EmptyCredential {
			return cred, err
		}
		return fromDocker(ctx, host)
	}
}

// fromDocker reads the user's own docker configuration.
func fromDocker(ctx context.Context, host string) (auth.Credential, error) {
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return auth.EmptyCredential, fault.New(fault.Unauthorized, "read the docker configuration: %w", err)
	}
	return fromStore(ctx, store, host)
}

// fromStore reads a docker configuration or its helper program.
func fromStore(ctx context.Context, store credentials.Store, host string) (auth.Credential, error) {
	cred, err := credentials.Credential(store)(ctx, host)
	if err != nil {
		return auth.EmptyCredential, fault.New(fault.Unauthorized, "get credentials for %s: %s", host, clean(err.Error()))
	}
	return cred, nil
}

func (c Credentials) getenv(name string) string {
	if c.Getenv == nil {
		return os.Getenv(name)
	}
	return c.Getenv(name)
}

func (c Credentials) fromEnvironment() auth.Credential {
	for _, names := range credentialVariables {
		if username, password := c.getenv(names[0]), c.getenv(names[1]); username != "" && password != "" {
			return auth.Credential{Username: username, Password: password}
		}
	}
	return auth.EmptyCredential
}

// maxToken bounds the token file, in bytes.
const maxToken = 64 << 10

// token follows the convention of the uenv client.
func (c Credentials) token(events event.Sink) (auth.Credential, error) {
	path := c.TokenFile
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, "TOKEN")
		info, err = os.Stat(path)
	}
	if err != nil {
		return auth.EmptyCredential, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		events.Warn("registry", "the token file %s can be read by others: chmod 600 it", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return auth.EmptyCredential, err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxToken)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return auth.EmptyCredential, err
	}
	password := strings.TrimRight(line, "\r\n")
	if password == "" {
		return auth.EmptyCredential, fault.New(fault.Unauthorized, "the first line of %s is empty", path)
	}
	username, err := c.username()
	return auth.Credential{Username: username, Password: password}, err
}

func (c Credentials) username() (string, error) {
	if c.Username != "" {
		return c.Username, nil
	}
	u, err := user.Current()
	if err != nil {
		return "", fault.WithHint(fault.New(fault.Usage, "the login name is not known: %w", err), "give --username")
	}
	return u.Username, nil
}
