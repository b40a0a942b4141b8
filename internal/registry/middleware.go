package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"oras.land/oras-go/v2/registry/remote/auth"

	"uenv-ci.dev/internal/fault"
)

// fromMiddleware asks the CI middleware for the registry's credentials, as the
// present pipeline does. The job's token travels in the query, so the address
// must not appear in any message.
func (c Credentials) fromMiddleware(ctx context.Context, retry RetryOptions) (auth.Credential, error) {
	base, token, job := c.getenv("CSCS_CI_MW_URL"), c.getenv("CI_JOB_TOKEN"), c.getenv("CI_JOB_ID")
	if base == "" || token == "" || job == "" {
		return auth.EmptyCredential, nil
	}
	query := url.Values{"token": {token}, "job_id": {job}, "creds": {"container_registry"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/credentials?"+query.Encode(), nil)
	if err != nil {
		return auth.EmptyCredential, fault.New(fault.Usage, "CSCS_CI_MW_URL is not a URL")
	}
	client := &http.Client{Transport: &retrier{base: http.DefaultTransport, options: retry}, Timeout: connectTimeout, CheckRedirect: checkRedirect}
	resp, err := client.Do(req)
	if err != nil {
		return auth.EmptyCredential, fault.Wrap(fault.Network, failure(err, "the CI middleware"), "get credentials from the CI middleware")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return auth.EmptyCredential, fault.New(fault.Unauthorized, "the CI middleware answered %s when asked for credentials", clean(resp.Status))
	}
	var answer struct {
		Registry struct{ Username, Password string } `json:"container_registry"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxToken)).Decode(&answer)
	if err != nil || answer.Registry.Username == "" || answer.Registry.Password == "" {
		return auth.EmptyCredential, fault.New(fault.Unauthorized, "the CI middleware gave no credentials of a registry")
	}
	return auth.Credential{Username: answer.Registry.Username, Password: answer.Registry.Password}, nil
}
