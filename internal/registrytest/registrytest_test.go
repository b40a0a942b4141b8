package registrytest

import (
	"io"
	"net/http"
	"testing"
)

func TestStartServesEveryKind(t *testing.T) {
	for _, kind := range append([]Kind{Docker}, InProcess...) {
		t.Run(string(kind), func(t *testing.T) {
			var seen Counter
			address := Start(t, kind, seen.Middleware())
			resp, err := http.Get("http://" + address + "/v2/")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK || seen.Count("") != 1 {
				t.Errorf("status %s, %d requests seen", resp.Status, seen.Count(""))
			}
		})
	}
}

func TestFaultsComeInOrderAndEnd(t *testing.T) {
	good := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("good")) })
	address := Serve(t, good, Faults(
		Rule{Path: "^/x", Skip: 1, Times: 1, Fault: Status(503)},
		Rule{Path: "^/x", Skip: 1, Times: 1, Fault: ResetAfter(2)},
	))
	get := func() string {
		resp, err := http.Get("http://" + address + "/x")
		if err != nil {
			return "error"
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return "broken"
		}
		return resp.Status[:3] + " " + string(body)
	}
	for i, want := range []string{"200 good", "503 ", "broken", "200 good"} {
		if got := get(); got != want {
			t.Errorf("request %d: %q, want %q", i, got, want)
		}
	}
}

func TestTokensExpireAndCoverScopes(t *testing.T) {
	tokens := &Tokens{Username: "u", Password: "p", Anonymous: true, Uses: 1}
	address := Serve(t, http.NotFoundHandler(), tokens.Middleware())
	req, _ := http.NewRequest(http.MethodGet, "http://"+address+"/v2/a/b/manifests/v1", nil)
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatal(resp, err)
	}
	resp, err := http.Get("http://" + address + "/token?scope=repository:a/b:pull,push")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	for _, c := range []struct {
		method string
		want   int
	}{
		{http.MethodPut, http.StatusUnauthorized}, // anonymous may only pull; this uses the token up
		{http.MethodGet, http.StatusUnauthorized},
	} {
		req.Method = c.method
		req.Header.Set("Authorization", "Bearer token-0")
		if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != c.want {
			t.Errorf("%s: %v, %v", c.method, resp, err)
		}
	}
}
