package main_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

const secretToken = "0123456789abcdef-the-token"

func TestHTTPBeyondLoopbackWantsATokenAndLoopbackMayHaveOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "http.token")
	write(t, token, secretToken+"\n")
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "127.0.0.1:0"} {
		if l, err := net.Listen("tcp", listen); err != nil {
			t.Logf("this machine has no %s: %v", listen, err)
			continue
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		n := start(t, t.TempDir(), "--http.listen", listen, "--http.token", token, "--http.hosts", "registry.example")
		_, port, err := net.SplitHostPort(n.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		api := "127.0.0.1:" + port
		ask := func(path, host, token string) (status int, challenge string) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+api+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			if token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
		}
		for _, tt := range []struct {
			path, host, token string
			want              int
		}{
			{"/healthz", "evil.example", "", 200},
			{"/readyz", "evil.example", "", 200},
			{"/metrics", "", "", 401},
			{"/metrics", "", "another-" + secretToken, 401},
			{"/metrics", "", secretToken, 200},
			{"/metrics", "evil.example", secretToken, 403},
			{"/metrics", "registry.example:443", secretToken, 200},
			{"/sd/prometheus", "", "", 401},
			{"/sd/prometheus", "", secretToken, 200},
		} {
			if got, challenge := ask(tt.path, tt.host, tt.token); got != tt.want || (challenge == "Bearer") != (got == 401) {
				t.Errorf("%s: %+v: %d, %q", listen, tt, got, challenge)
			}
		}

		for _, command := range []string{"ls", "status", "natives", "get " + stranger, "watch"} {
			_, log := run(t, dir, 1, append(strings.Fields(command), "--api", api)...)
			expectMessage(t, log, "http.token", "came without", "--token names a file")
		}
		other := filepath.Join(dir, "other")
		write(t, other, "another-"+secretToken)
		_, log := run(t, dir, 1, "ls", "--api", api, "--token", other)
		expectMessage(t, log, "came with another one", "--token names a file")
		run(t, dir, 0, "ls", "--api", api, "--token", token)
		launch(t, dir, nil, "watch", "--api", api, "--token", token).Prints("synced")

		// The node of the configuration is asked with its token, and nobody else is.
		own := t.TempDir()
		write(t, filepath.Join(own, "config.yaml"), fmt.Sprintf("http:\n  listen: %q\n  token: %s\n", strings.Replace(listen, ":0", ":"+port, 1), token))
		out, _ := run(t, own, 0, "status")
		if !strings.Contains(out, n.PeerID) {
			t.Errorf("status prints %s", out)
		}
		_, log = run(t, own, 1, "status", "--api", api)
		expectMessage(t, log, "came without")
		run(t, own, 0, "status", "--token", token)
		_, log = run(t, own, 1, "status", "--token", other)
		expectMessage(t, log, "came with another one")
	}
}

func TestMistakesAboutTheTokenAreToldWhereTheyAre(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		token string // "" for no such file
		mode  os.FileMode
		file  string
		args  []string
		want  []wrong
	}{
		"beyond loopback without": {
			file: "http:\n  listen: :4180\n",
			want: []wrong{{"config.yaml:2", "http.listen", []string{`":4180" is beyond loopback`, "http.token", "openssl rand", "127.0.0.1:4180"}}},
		},
		"not there": {
			file: "http:\n  listen: 0.0.0.0:4180\n  token: http.token\n",
			want: []wrong{{"config.yaml:3", "http.token", []string{`"http.token" is not there`}}},
		},
		"too short": {
			token: "0123456789abcde\n", mode: 0o600, file: "http:\n  token: http.token\n",
			want: []wrong{{"config.yaml:2", "http.token", []string{"a token of 15 bytes, want 16 to 4096"}}},
		},
		"for all to read": {
			token: secretToken, mode: 0o644, file: "\n", args: []string{"--http.token=http.token"},
			want: []wrong{{"--http.token", "http.token", []string{"has mode 0644", "chmod 600 http.token"}}},
		},
		"hosts that are none": {
			file: "http:\n  hosts:\n    - a.example\n    - b.example:80\n    - \"*.example\"\n",
			want: []wrong{
				{"config.yaml:4", "http.hosts", []string{`"b.example:80"`, "without a port"}},
				{"config.yaml:5", "http.hosts", []string{`"*.example"`, "registry.example"}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if path := filepath.Join(dir, "http.token"); tt.token != "" {
				write(t, path, tt.token)
				if err := os.Chmod(path, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			write(t, filepath.Join(dir, "config.yaml"), tt.file)
			expectMistakes(t, dir, nil, tt.args, tt.want)
		})
	}
	dir := t.TempDir()
	_, log := run(t, dir, 2, "ls", "--token", "missing")
	expectMessage(t, log, `--token: "missing" is not there`)
	write(t, filepath.Join(dir, "http.token"), secretToken)
	_, log = run(t, dir, 2, "ls", "--token", "http.token", "--native", "/ip4/127.0.0.1/tcp/1/p2p/"+stranger)
	expectMessage(t, log, "--token is for asking over HTTP")
	write(t, filepath.Join(dir, "config.yaml"), "http: {token: missing}\n")
	_, log = run(t, dir, 3, "status")
	expectMessage(t, log, `config.yaml:1: http.token: "missing" is not there`)
	// What else is wrong there is of no concern to who asks.
	write(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf("http: {listen: 127.0.0.1:%d}\nhost: {psk: missing}\n", ocnodetest.UnusedPort(t)))
	run(t, dir, 4, "status")
}
