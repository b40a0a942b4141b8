package registrytest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
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

// A stall begins even where nothing is left to be sent. The test ends by the limit of
// 'go test' if it lasts for ever.
func TestAStallOfTheWholeEnds(t *testing.T) {
	const body = "good"
	serve := func(t *testing.T) (address string, ended chan struct{}) {
		good := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = io.WriteString(w, body)
		})
		ended = make(chan struct{})
		watch := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				next.ServeHTTP(w, r)
			})
		}
		return Serve(t, good, watch, Faults(Rule{Fault: StallAfter(int64(len(body)))})), ended
	}
	t.Run("the client goes", func(t *testing.T) {
		address, ended := serve(t)
		resp, err := http.Get("http://" + address + "/")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != body {
			t.Errorf("%q, %v", got, err)
		}
		<-ended
	})
	var left net.Conn
	var ended chan struct{}
	t.Run("the server closes", func(t *testing.T) {
		var address string
		address, ended = serve(t)
		var err error
		if left, err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(left, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(left), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != body {
			t.Errorf("%q, %v", got, err)
		}
	})
	<-ended
	left.Close()
}
