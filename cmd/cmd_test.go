package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports/porttest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/fx"
)

// every calls visit for cmd and all below it.
func every(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		every(sub, visit)
	}
}

func builtin() *program {
	return &program{modules: modules.Builtin(), schema: modules.Schema(modules.Builtin())}
}

func TestEveryCommandSaysWhatItIsFor(t *testing.T) {
	seen := 0
	every(builtin().root(), func(cmd *cobra.Command) {
		seen++
		path := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || strings.Contains(cmd.Short, "\n") {
			t.Errorf("%s: its line in the help is %q, want one line without a full stop", path, cmd.Short)
		}
		if cmd.HasParent() && !strings.Contains(cmd.Example, cmd.Name()) {
			t.Errorf("%s: its examples do not show it: %q", path, cmd.Example)
		}
		if parent := cmd.Parent(); parent != nil && len(parent.Groups()) > 0 && cmd.GroupID == "" {
			t.Errorf("%s is in no group of the help", path)
		}
		if cmd.RunE == nil {
			t.Errorf("%s does nothing: a mistyped command after it would succeed", path)
		}
		if cmd.HasSubCommands() && cmd.HasParent() {
			var out strings.Builder
			cmd.SetOut(&out)
			if err := cmd.RunE(cmd, nil); !errors.As(err, &usageError{}) || out.String() != "" {
				t.Errorf("%s without one of its commands succeeds, or prints: %v, %q", path, err, &out)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s does not say what it is for", path, f.Name)
			}
		})
	})
	if seen < 12 {
		t.Errorf("saw %d commands", seen)
	}
}

func TestEveryExampleIsACommandLine(t *testing.T) {
	var lines []string
	every(builtin().root(), func(cmd *cobra.Command) {
		lines = append(lines, strings.Split(cmd.Example, "\n")...)
	})
	seen := 0
	for _, line := range lines {
		_, words, ok := strings.Cut(line, "ocnode")
		if !ok {
			continue
		}
		seen++
		words, _, _ = strings.Cut(words, "   ") // what follows tells what it does
		if end := strings.IndexAny(words, ">|)"); end >= 0 {
			words = words[:end] // the rest is the shell's affair
		}
		root := builtin().root()
		cmd, rest, err := root.Find(strings.Fields(words))
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil && !errors.Is(err, pflag.ErrHelp) {
			t.Errorf("%q: %v", line, err)
		}
	}
	if seen < 20 {
		t.Errorf("saw %d examples", seen)
	}
}

// outputOf runs a command line in this process.
func outputOf(t *testing.T, list []modules.Module, args ...string) string {
	t.Helper()
	var out, log strings.Builder
	if code := run(t.Context(), list, append(args, "--config="), nil, &out, &log); code != exitOK || log.String() != "" {
		t.Fatalf("ocnode %s: exit code %d, standard error %q", args, code, &log)
	}
	return out.String()
}

func TestAModuleFromOutsideIsListed(t *testing.T) {
	type section struct {
		Shelves []string      `koanf:"shelves" help:"where entries go"`
		Dusted  time.Duration `koanf:"dusted" help:"how often it is dusted" live:"true"`
	}
	list := append(modules.Builtin(), modules.Module{
		Name: "shelf", Summary: "a store of the tests", Fills: modules.Store, Section: section{Dusted: time.Minute},
		Wire: func(*modules.Plan) fx.Option { return fx.Options() },
	})
	text := outputOf(t, list, "modules", "--modules", "native,shelf")
	for _, want := range []string{
		"native    on      --modules   -           the registry",
		"dht       off     --modules   Store       ",
		"shelf     on      --modules   Store       a store of the tests\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "telemetry") || !strings.Contains(outputOf(t, list, "modules", "--all"), "telemetry   always   -") {
		t.Error("what every node has is listed with --all, and not without")
	}

	var listed []listedModule
	if err := json.Unmarshal([]byte(outputOf(t, list, "modules", "-o", "json")), &listed); err != nil {
		t.Fatal(err)
	}
	want := listedModule{
		Name: "shelf", State: stateOff, From: "default", Fills: "Store", Summary: "a store of the tests",
		Keys: []listedKey{
			{"shelf.shelves", "list", []any{}, "OCNODE_SHELF__SHELVES", false, "where entries go"},
			{"shelf.dusted", "duration", "60s", "OCNODE_SHELF__DUSTED", true, "how often it is dusted"},
		},
	}
	if diff := cmp.Diff(want, listed[len(listed)-1]); diff != "" {
		t.Errorf("in JSON it is (-want +got):\n%s", diff)
	}
}

func TestAgesAreThoseOfKubectl(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Second:                   "0s",
		0:                              "0s",
		999 * time.Millisecond:         "0s",
		5 * time.Second:                "5s",
		2*time.Minute - 1:              "119s",
		2 * time.Minute:                "2m",
		3*time.Minute + 12*time.Second: "3m12s",
		10*time.Minute - 1:             "9m59s",
		10 * time.Minute:               "10m",
		3*time.Hour - 1:                "179m",
		3 * time.Hour:                  "3h",
		8*time.Hour - 1:                "7h59m",
		8 * time.Hour:                  "8h",
		2*day - 1:                      "47h",
		2 * day:                        "2d",
		8*day - 1:                      "7d23h",
		8 * day:                        "8d",
		2*year - 1:                     "729d",
		2*year + day:                   "2y1d",
		9*year + day:                   "9y",
	} {
		if got := age(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}

func TestATableFitsTheTerminal(t *testing.T) {
	names := [][]string{{"ID", "ADDR", "STATE"}, {"a", "/ip4/192.0.2.1/tcp/4101", "live"}, {"a", "/dns/机器.example/tcp/4101", "live"}}
	const addr, v6 = "/ip4/192.168.100.100/udp/41010/quic-v1", "/ip6/2001:db8:1111:2222:3333:4444:5555:6666/tcp/4101"
	all := func(addr string) [][]string {
		return [][]string{
			{"PEER ID", "ADDR", "STATE", "LAST SEEN", "EXPIRES IN", "VIA"},
			{"12D3Koo…TjYWaF", addr, "live", "12s", "54s", "12D3Koo…bWaG"},
		}
	}
	for _, tt := range []struct {
		name    string
		rows    [][]string
		elastic string
		width   int
		want    string
	}{
		{"with room left", names, "ADDR", 40, "ID   ADDR                         STATE\na    /ip4/192.0.2.1/tcp/4101      live\na    /dns/机器.example/tcp/4101   live\n"},
		{"to the cell", names, "ADDR", 39, "ID   ADDR                         STATE\na    /ip4/192.0.2.1/tcp/4101      live\na    /dns/机器.example/tcp/4101   live\n"},
		{"one cell short", names, "ADDR", 38, "ID   ADDR                        STATE\na    /ip4/192.0.2.1/tcp/4101     live\na    /dns/机器.example/tcp/41…   live\n"},
		{"far too narrow", names, "ADDR", 10, "ID   ADDR           STATE\na    /ip4/192.0.…   live\na    /dns/机器.e…   live\n"},
		{"no elastic column", names, "SUMMARY", 10, table(names)},
		{
			"all columns of a list", all(addr), "ADDR", 120,
			"PEER ID          ADDR                                     STATE   LAST SEEN   EXPIRES IN   VIA\n" +
				"12D3Koo…TjYWaF   " + addr + "   live    12s         54s          12D3Koo…bWaG\n",
		},
		{
			"VIA goes first", all(addr), "ADDR", 90,
			"PEER ID          ADDR                                     STATE   LAST SEEN   EXPIRES IN\n" +
				"12D3Koo…TjYWaF   " + addr + "   live    12s         54s\n",
		},
		{
			"LAST SEEN goes next", all(addr), "ADDR", 80,
			"PEER ID          ADDR                                     STATE   EXPIRES IN\n" +
				"12D3Koo…TjYWaF   " + addr + "   live    54s\n",
		},
		{
			"EXPIRES IN goes last", all(v6), "ADDR", 80,
			"PEER ID          ADDR                                                   STATE\n" +
				"12D3Koo…TjYWaF   " + v6 + "   live\n",
		},
		{
			"the rest is cut", all(addr), "ADDR", 50,
			"PEER ID          ADDR                        STATE\n" +
				"12D3Koo…TjYWaF   /ip4/192.168.100.100/udp…   live\n",
		},
		{
			"a name that is longer than any number costs nobody a column", all("/dns4/" + strings.Repeat("a", 90) + "/tcp/4101"), "ADDR", 118,
			"PEER ID          ADDR                                                    STATE   LAST SEEN   EXPIRES IN   VIA\n" +
				"12D3Koo…TjYWaF   /dns4/" + strings.Repeat("a", 46) + "…   live    12s         54s          12D3Koo…bWaG\n",
		},
		{
			"a text is cut, and no column spared", [][]string{{"VIA", "SUMMARY"}, {"b", "what it is there for"}}, "SUMMARY", 20,
			"VIA   SUMMARY\nb     what it is th…\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, table(fit(tt.rows, tt.elastic, tt.width))); diff != "" {
				t.Errorf("%d cells wide it is not as it should be (-want +got):\n%s", tt.width, diff)
			}
		})
	}
}

// What answers at --api is a stranger, and so is who registered there.
func TestAHostileNodeWritesNothingButText(t *testing.T) {
	const friend = "12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"
	entry := func(id string) string {
		return fmt.Sprintf(`{"peerID":%q,"addr":"/a\u001b[2J","addrs":["/a\u001b[2J"],"meta":{"\u001bc":"\u009b0m\udb40\udc01"},"state":"\u001b[31mlive","expiresAt":"2030-01-01T00:00:00Z","via":"\u001b]0;v\u0007"}`, id)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "status"):
			fmt.Fprint(w, `{"peerID":"\u001b[2J","addrs":["\u001b[2J"],"modules":["\u001b[2J"]}`)
		case strings.HasSuffix(r.URL.Path, friend):
			fmt.Fprint(w, entry(friend))
		default:
			fmt.Fprintf(w, `{"indexers":[%s,%s,%s],"next":""}`, entry("$(touch owned)"), entry("`touch owned`\n12D3Koo"), entry(friend))
		}
	}))
	defer server.Close()
	for _, args := range [][]string{{"ls"}, {"get", friend}, {"status"}, {"ls", "-o", "json"}, {"get", "…" + friend[30:]}} {
		var out, log strings.Builder
		if code := run(t.Context(), modules.Builtin(), append(args, "--api", server.URL), nil, &out, &log); code != exitOK {
			t.Errorf("ocnode %s: exit code %d: %s", args, code, &log)
		}
		if args[len(args)-1] == "json" {
			var listed []struct{ Meta map[string]string }
			if err := json.Unmarshal([]byte(out.String()), &listed); err != nil || listed[0].Meta["\x1bc"] != "\u009b0m\U000e0001" {
				t.Errorf("the JSON is not what the node said: %+v, %v", listed, err)
			}
		}
		if text := out.String(); strings.ContainsAny(text, "\x1b\u009b\a\U000e0001") {
			t.Errorf("ocnode %s prints %q", args, text)
		}
	}
	var out, log strings.Builder
	for end := time.Now().Add(porttest.Patience); out.Len() <= len(":4\n") && time.Now().Before(end); { // it gives a node half a second
		out.Reset()
		run(t.Context(), modules.Builtin(), []string{"__complete", "get", "--api", server.URL, ""}, nil, &out, &log)
	}
	if got := out.String(); strings.Contains(got, "touch") || strings.Contains(got, "\x1b") || !strings.HasPrefix(got, friend+"\t") {
		t.Errorf("it is completed to %q", got)
	}
}
