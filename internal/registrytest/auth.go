package registrytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Basic asks every request for a user name and password.
func Basic(username, password string) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, ok := r.BasicAuth(); !ok || u != username || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func refuse(w http.ResponseWriter, code int, name, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": name, "message": message}}})
}

// Tokens asks for bearer tokens, gives them to one user, and lets anybody pull
// if Anonymous is set. Each token is good for Uses requests (0: for ever), so
// that transfers see them expire.
type Tokens struct {
	Username, Password string
	Anonymous          bool
	Uses               int

	mu     sync.Mutex
	issued map[string]*token
}

type token struct {
	scopes string
	left   int
}

// Middleware returns the handler; it answers the token requests as well.
func (t *Tokens) Middleware() Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				t.issue(w, r)
			case !t.allowed(r):
				challenge := fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope=%q`, r.Host, scopeOf(r))
				w.Header().Set("WWW-Authenticate", challenge)
				refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

// scopeOf names what a request needs.
func scopeOf(r *http.Request) string {
	name := strings.TrimPrefix(r.URL.Path, "/v2/")
	if m := pathKind.FindStringIndex(r.URL.Path); m != nil {
		name = strings.TrimPrefix(r.URL.Path[:m[0]], "/v2/")
	}
	actions := "pull"
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		actions = "pull,push"
	case http.MethodDelete:
		actions = "delete"
	}
	return "repository:" + name + ":" + actions
}

func (t *Tokens) issue(w http.ResponseWriter, r *http.Request) {
	u, p, ok := r.BasicAuth()
	scopes := strings.Join(r.URL.Query()["scope"], " ")
	known := ok && u == t.Username && p == t.Password
	if ok && !known {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "wrong user name or password")
		return
	}
	if !known && t.Anonymous {
		scopes = strings.NewReplacer(",push", "", ",delete", "", "delete", "pull").Replace(scopes)
	} else if !known {
		scopes = ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.issued == nil {
		t.issued = map[string]*token{}
	}
	name := "token-" + strconv.Itoa(len(t.issued))
	t.issued[name] = &token{scopes, t.Uses}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": name, "expires_in": 300})
}

// allowed tells whether the request's token covers it.
func (t *Tokens) allowed(r *http.Request) bool {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	t.mu.Lock()
	defer t.mu.Unlock()
	issued := t.issued[name]
	if !ok || issued == nil {
		return false
	}
	if t.Uses > 0 {
		if issued.left--; issued.left < 0 {
			return false
		}
	}
	need := scopeOf(r)
	repository, action := need[:strings.LastIndexByte(need, ':')], need[strings.LastIndexByte(need, ':')+1:]
	for _, scope := range strings.Fields(issued.scopes) {
		if allowed, ok := strings.CutPrefix(scope, repository+":"); ok && covers(allowed, action) {
			return true
		}
	}
	return false
}

func covers(allowed, needed string) bool {
	for _, a := range strings.Split(needed, ",") {
		if !strings.Contains(","+allowed+",", ","+a+",") {
			return false
		}
	}
	return true
}

// Issued returns how many tokens were given out.
func (t *Tokens) Issued() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.issued)
}
