package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

const testToken = "0123456789abcdef"

func TestReadTokenTakesATokenAndNothingElse(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string // "" for accepted
	}{
		"the shortest":         {testToken + "\n", 0o600, ""},
		"without a line's end": {testToken, 0o400, ""},
		"the longest":          {strings.Repeat("~", maxTokenBytes) + "\n", 0o440, ""},
		"everyone may read":    {testToken, 0o644, "has mode 0644, so that others than its owner can use or replace it: chmod 600 "},
		"empty":                {"", 0o600, "is empty: (umask 077; openssl rand"},
		"an empty line":        {"\n", 0o600, "a token of 0 bytes, want 16 to 4096"},
		"too short":            {testToken[1:] + "\n", 0o600, "a token of 15 bytes"},
		"a byte too many":      {strings.Repeat("x", maxTokenBytes+1), 0o600, "a token of 4097 bytes"},
		"far too many":         {strings.Repeat("x", 2*maxTokenBytes), 0o600, "has more than 4097 bytes"},
		"two lines":            {testToken + "\n" + testToken + "\n", 0o600, "a second line"},
		"two ends of a line":   {testToken + "\n\n", 0o600, "a second line"},
		"Windows' line end":    {testToken + "\r\n", 0o600, "not printable ASCII"},
		"a blank":              {testToken + " " + testToken, 0o600, "with a blank"},
		"other letters":        {testToken + "é", 0o600, "not printable ASCII"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			if err := errors.Join(os.WriteFile(path, []byte(tt.text), 0o600), os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
			token, err := ReadToken(path)
			if tt.want == "" {
				if want := strings.TrimSuffix(tt.text, "\n"); token != want || err != nil {
					t.Errorf("it is %q, %v", token, err)
				}
				return
			}
			if token != "" || err == nil || !strings.HasPrefix(err.Error(), strconv.Quote(path)+" ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), testToken[1:]) {
				t.Errorf("it is %q, %v; want an error with %q", token, err, tt.want)
			}
		})
	}
	for path, want := range map[string]string{filepath.Join(t.TempDir(), "missing"): "is not there: ", "a\x00b": "cannot be read", t.TempDir(): "is not a regular file"} {
		if _, err := ReadToken(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
	if token, err := ReadToken(""); token != "" || err != nil {
		t.Errorf("without a file: %q, %v", token, err)
	}
}

func TestBeyondLoopbackHTTPWantsAToken(t *testing.T) {
	for listen, beyond := range map[string]bool{
		"127.0.0.1:0": false, "127.1.2.3:80": false, "[::1]:80": false, "localhost:80": false, "LocalHost.:80": false, "[::ffff:127.0.0.1]:80": false,
		":80": true, "0.0.0.0:80": true, "[::]:80": true, "192.0.2.1:80": true, "10.0.0.1:80": true, "[fe80::1%lo]:80": true, "a.example:80": true,
		"localhost.example:80": true,
	} {
		err := Config{Listen: listen}.Validate()
		if (err != nil) != beyond || err != nil && !(strings.Contains(err.Error(), listen) && strings.Contains(err.Error(), "http.token")) {
			t.Errorf("%s: %v", listen, err)
		}
		if err := (Config{Listen: listen, Token: testToken}).Validate(); err != nil {
			t.Errorf("%s with a token: %v", listen, err)
		}
	}
	for host, fine := range map[string]bool{
		"a.example": true, "a": true, "10.0.0.1": true, "::1": true, "a_b.svc": true,
		"": false, "a.example:80": false, "http://a": false, "[::1]": false, "a b": false, "*": false, "..": false,
	} {
		if err := (Config{Listen: "127.0.0.1:0", Hosts: []string{host}}).Validate(); (err == nil) != fine || err != nil && !strings.Contains(err.Error(), "http.hosts") {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// everyPath are all that there are, and one that is not.
var everyPath = []string{"/metrics", statusPath, indexersPath, indexersPath + "/a", nativesPath, prometheusPath, "/none", "/", "/healthz/", "//healthz", "/HEALTHZ"}

func TestEveryPathButAProbesWantsTheToken(t *testing.T) {
	h := guard(Config{Token: testToken}, routes(testNode(threeIndexers()), nil))
	ask := func(method, path, authorization string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://localhost", nil)
		r.URL.Path = path
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for _, authorization := range []string{
		"", "Bearer", "Bearer ", "Bearer x", testToken, "Basic " + testToken, "Bearer " + testToken[1:], "Bearer " + testToken + "0", "Bearer " + strings.ToUpper(testToken),
	} {
		for _, path := range append(everyPath, watchPath) {
			w := ask(http.MethodGet, path, authorization)
			var body errorBody
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusUnauthorized || body.Error.Code != CodeUnauthorized ||
				!strings.Contains(body.Error.Message, "http.token") || w.Header().Get("WWW-Authenticate") != "Bearer" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s with %q: %d %s %v", path, authorization, w.Code, w.Body, w.Header())
			}
			if strings.Contains(w.Body.String(), testToken) {
				t.Errorf("%s tells the token: %s", path, w.Body)
			}
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if w := ask(http.MethodGet, path, authorization); w.Code != http.StatusOK {
				t.Errorf("%s with %q: %d", path, authorization, w.Code)
			}
		}
	}
	for _, authorization := range []string{"Bearer " + testToken, "bearer  " + testToken} {
		for _, path := range everyPath {
			if w := ask(http.MethodGet, path, authorization); w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden {
				t.Errorf("%s with the token: %d", path, w.Code)
			}
		}
	}
	if w := ask(http.MethodPost, indexersPath, ""); w.Code != http.StatusUnauthorized {
		t.Errorf("POST without the token: %d", w.Code)
	}
}

func TestEveryPathButAProbesWantsAHostThatTheNodeGoesBy(t *testing.T) {
	cfg := Config{Listen: "A.example:4180", Hosts: []string{"registry.example", "192.0.2.9", "2001:DB8::9"}}
	h := guard(cfg, routes(testNode(threeIndexers()), nil))
	for host, fine := range map[string]bool{
		"localhost": true, "LOCALHOST:80": true, "localhost.": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]": true, "[::1]:80": true,
		"a.example": true, "a.example:9": true, "registry.example:443": true, "Registry.Example.": true, "192.0.2.9": true, "[2001:db8::9]:80": true,
		"192.0.2.1:80": true, "[::ffff:192.0.2.1]": true, // where the connection came in
		"": false, "192.0.2.2": false, "[2001:db8::1]": false, "evil.example": false, "registry.example.evil.example": false,
		"localhost.evil.example": false, "127.0.0.1.evil.example": false, "a.example.": true, ":80": false,
	} {
		for _, path := range append(everyPath, "/healthz", "/readyz") {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80})))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			refused := w.Code == http.StatusForbidden
			if probe := path == "/healthz" || path == "/readyz"; refused == (fine || probe) {
				t.Errorf("%s of %q: %d %s", path, host, w.Code, w.Body)
			}
			var body errorBody
			if err := json.Unmarshal(w.Body.Bytes(), &body); refused && (err != nil || body.Error.Code != CodeForbiddenHost ||
				!strings.Contains(body.Error.Message, "http.hosts") || w.Header().Get("Cache-Control") != "no-store") {
				t.Errorf("%s of %q: %s", path, host, w.Body)
			}
		}
	}
}

// The client brings the token, and nobody else's server gets it by a redirect.
func TestAClientWithTheToken(t *testing.T) {
	s, err := New(Config{Listen: "127.0.0.1:0", Token: testToken}, testNode(native{watch: batches(ports.Refuse(ports.CodeBusy, "enough"), story()...)}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	client := func(base, token string) *Client {
		c, err := NewClient(base, token)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	watched := func(c *Client) (batches int, last error) {
		for _, last = range c.Watch(t.Context(), ports.WatchRequest{}) {
			batches++
		}
		return batches, last
	}
	with := client(s.Addr(), testToken)
	if _, err := with.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := watched(with); n < 2 {
		t.Errorf("the watch has %d batches, %v", n, err)
	}
	for _, token := range []string{"", "another" + testToken} {
		c := client(s.Addr(), token)
		_, asked := c.Status(t.Context())
		_, watched := watched(c)
		for _, err := range []error{asked, watched} {
			refusal, ok := errors.AsType[*APIError](err)
			if !ok || refusal.Code != CodeUnauthorized || refusal.Status != http.StatusUnauthorized {
				t.Errorf("with the token %q: %v", token, err)
			}
		}
	}

	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the token goes elsewhere: %v", r.Header)
	}))
	defer elsewhere.Close()
	redirects := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer redirects.Close()
	if _, err := client(redirects.URL, testToken).Status(t.Context()); err == nil {
		t.Error("a redirect was followed")
	}
}
