package cmd

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/modules"
)

// A script must be able to tell that nobody is alive from a native that cannot know yet.
func TestListsOfANativeThatCannotKnowYetSaySo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"indexers":[],"next":"","condition":"warming"}`)
	}))
	defer server.Close()
	const want = "ocnode: this native is warming: it has just started, and who is missing may be alive\n"
	for _, format := range []string{"table", "json"} {
		var out, log strings.Builder
		code := run(t.Context(), modules.Builtin(), []string{"ls", "--api", server.URL, "-o", format}, nil, &out, &log)
		if code != exitOK || log.String() != want || strings.Contains(out.String(), "warming") {
			t.Errorf("-o %s: code %d, it says %q, want %q, and prints %q", format, code, &log, want, &out)
		}
	}
}

func TestListsThatCannotBeAskedFor(t *testing.T) {
	const a, b = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF", "/ip4/127.0.0.1/tcp/2/p2p/12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--native", a, "--native", b}, "--native is given 2 times; one native is asked, so give one"},
		{[]string{"--native", a, "--api", "127.0.0.1:1"}, "--native and --api are two ways to ask; give one of them"},
		{[]string{"--native", a, "--meta", "zone"}, `--meta "zone": want name=value, such as zone=eu-1`},
		{[]string{"--native", a, "--meta", "zone=a", "--meta", "zone=b"}, `--meta zone: it cannot be both "a" and "b"`},
		{[]string{"--native", a, "--meta", "zone=" + strings.Repeat("x", 1100)}, "--meta: nobody has that: Meta has 1104 bytes of names and values, at most 1024 are allowed"},
		{[]string{"--native", a, "--meta", "zone=\xff"}, `--meta "zone=\xff": not UTF-8`},
		{[]string{"--api", "127.0.0.1:1", "--meta", "zone=\xff"}, `--meta "zone=\xff": not UTF-8`},
		{[]string{"--meta"}, "--meta wants a value: only those with this metadata, name=value; given several times, all must hold; see ocnode ls --help"},
	} {
		t.Run(fmt.Sprint(tt.args), func(t *testing.T) {
			var out, log strings.Builder
			if code := run(t.Context(), modules.Builtin(), append([]string{"ls", "--config="}, tt.args...), nil, &out, &log); code != exitUsage || log.String() != "ocnode: "+tt.want+"\n" || out.String() != "" {
				t.Errorf("code %d, %q, want %d, %q; printed %q", code, &log, exitUsage, "ocnode: "+tt.want+"\n", &out)
			}
		})
	}
}
