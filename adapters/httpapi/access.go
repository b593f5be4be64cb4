package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/opencloud/ocnode/adapters/internal/secret"
)

const (
	// minTokenBytes is what nobody guesses if it is chosen at random: 16 hexadecimal digits
	// are 64 bits. maxTokenBytes leaves room in the headers of a request.
	minTokenBytes, maxTokenBytes = 16, 4096
	bearer                       = "Bearer"

	makeToken = "(umask 077; openssl rand -hex 32 >FILE) makes one"
)

// ReadToken reads the token in the file at path (http.token), "" if path is "". The error
// says what is wrong with the file and what to do, and shows nothing of its content.
func ReadToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := secret.Read(path, maxTokenBytes+1, makeToken)
	unreadable := new(fs.PathError)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%q is not there: %s", path, makeToken)
	case errors.As(err, &unreadable):
		return "", fmt.Errorf("%q cannot be read: %w: this user must be allowed to read it", path, unreadable.Err)
	case err != nil:
		return "", fmt.Errorf("%q %w", path, err)
	}
	token := strings.TrimSuffix(string(text), "\n")
	if len(token) < minTokenBytes || len(token) > maxTokenBytes {
		return "", fmt.Errorf("%q has a token of %d bytes, want %d to %d: %s", path, len(token), minTokenBytes, maxTokenBytes, makeToken)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%q has a token with a blank, a second line or another character that is not printable ASCII: %s", path, makeToken)
	}
	return token, nil
}

// CheckHost returns what is wrong with an item of http.hosts.
func CheckHost(host string) error {
	if _, err := netip.ParseAddr(host); err != nil && !isName(host) {
		return fmt.Errorf("%q is no name and no IP address of a host: write it without a port, such as registry.example", host)
	}
	return nil
}

// BeyondLoopback reports whether others than the machine itself may reach HTTP at listen,
// a host:port; no host stands for all addresses.
func BeyondLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	return err == nil && !isLoopback(spelled(host))
}

// NoToken is the error of a listen beyond loopback without a token.
func NoToken(listen string) error {
	return fmt.Errorf("http.listen %q is beyond loopback, and there HTTP wants a token: name a file with one in http.token (%s), or listen on loopback, such as %s",
		listen, makeToken, DefaultConfig().Listen)
}

// spelled returns the one spelling of a host that it is compared in.
func spelled(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.WithZone("").Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func isLoopback(spelled string) bool {
	ip, err := netip.ParseAddr(spelled)
	return spelled == "localhost" || err == nil && ip.IsLoopback()
}

// guard lets through to h what comes with the token of cfg, if it has one, and by a name
// that the node goes by: a page in a browser can have its own name lead here, and would
// read what it gets. Probes need neither, since orchestrators know an address alone.
func guard(cfg Config, h http.Handler) http.Handler {
	names := make(map[string]bool)
	for _, host := range cfg.Hosts {
		names[spelled(host)] = true
	}
	if host, _, err := net.SplitHostPort(cfg.Listen); err == nil && host != "" {
		names[spelled(host)] = true
	}
	// Sums are of one length, which is all that the time of comparing them could tell.
	want := sha256.Sum256([]byte(cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == healthPath, r.URL.Path == readyPath:
		case !goesBy(names, r):
			stamp(w)
			fail(w, http.StatusForbidden, CodeForbiddenHost,
				"host %.80q is none that this node goes by; ask it by its address, or add the name to its http.hosts", r.Host)
			return
		case cfg.Token != "":
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			got := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
			if !strings.EqualFold(scheme, bearer) || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				stamp(w)
				w.Header().Set("WWW-Authenticate", bearer)
				what := "came with another one"
				if token == "" {
					what = "came without"
				}
				fail(w, http.StatusUnauthorized, CodeUnauthorized,
					"this node wants the token in its http.token, as Authorization: Bearer <token>, and the request %s", what)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// goesBy reports whether a request names its host by loopback, by one of names, or by the
// address at which it came in.
func goesBy(names map[string]bool, r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = spelled(strings.Trim(host, "[]"))
	if isLoopback(host) || names[host] {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && spelled(local.IP.String()) == host
}
