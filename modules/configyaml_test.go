package modules_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
)

// TestConfigYAML holds the project's config.yaml against the schema: it is read strictly,
// has every key at its default, and says something of each.
func TestConfigYAML(t *testing.T) {
	bytes, err := os.ReadFile("../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(bytes)
	whole := strings.ReplaceAll(text, "\n  #listen:", "\n  listen:")

	t.Run("it is what config init writes", func(t *testing.T) {
		if diff := cmp.Diff(text, draft(t, "native", nil)); diff != "" {
			t.Errorf("mend it with go run ./cmd/ocnode config init - > config.yaml (-config.yaml +config init)\n%s", diff)
		}
	})
	t.Run("every key stands there at its default", func(t *testing.T) {
		set, _ := loadYAML(t, whole)
		if diff := cmp.Diff(defaults(), set); diff != "" {
			t.Errorf("(-default +config.yaml)\n%s", diff)
		}
	})
	t.Run("only what means another thing once it is set is commented out", func(t *testing.T) {
		want := defaults()
		delete(want, "host.listen") // and a node without native takes free ports
		delete(want, "http.listen")
		set, cfg := loadYAML(t, text)
		if diff := cmp.Diff(want, set); diff != "" {
			t.Errorf("(-want +config.yaml)\n%s", diff)
		}
		if _, err := modules.NewPlan(modules.Builtin(), cfg); err != nil {
			t.Error(err)
		}
	})
	t.Run("every key has a comment", func(t *testing.T) { expectComments(t, whole) })
}

// expectComments fails the test if a key of a file has no comment.
func expectComments(t *testing.T, text string) {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	sections := document.Content[0].Content
	for i := 0; i < len(sections); i += 2 {
		keys := sections[i+1].Content
		for j := 0; j < len(keys); j += 2 {
			if keys[j].HeadComment == "" {
				t.Errorf("%s.%s has none", sections[i].Value, keys[j].Value)
			}
		}
	}
}

func TestADraftForAnIndexerLacksItsNativesAlone(t *testing.T) {
	text := draft(t, "indexer", []string{"indexer.natives"})
	expectComments(t, strings.ReplaceAll(text, "\n  #listen:", "\n  listen:"))
	set, cfg := loadYAML(t, text)
	on := map[string]bool{"native": false, "indexer": true, "dht": false, "gossip": false, "mdns": false}
	if diff := cmp.Diff(on, cfg.Modules()); diff != "" {
		t.Errorf("the modules (-want +got)\n%s", diff)
	}
	for name, value := range set {
		if !strings.HasPrefix(name, "modules.") {
			if diff := cmp.Diff(defaults()[name], value); diff != "" {
				t.Errorf("%s is not at its default\n%s", name, diff)
			}
		}
	}
	for _, useless := range []string{"refresh:", "dht:\n", "gossip:\n"} {
		if strings.Contains(text, "\n"+useless) || strings.Contains(text, "\n  "+useless) {
			t.Errorf("an indexer has no use for %s", useless)
		}
	}
	if modules, indexer, data := strings.Index(text, "\nmodules:"), strings.Index(text, "\nindexer:"), strings.Index(text, "\ndata:"); modules > indexer || indexer > data {
		t.Errorf("what is to be filled in does not come first:\n%s", text)
	}

	_, err := modules.NewPlan(modules.Builtin(), cfg)
	var all *config.Error
	if !errors.As(err, &all) || len(all.Mistakes) != 1 || all.Mistakes[0].Key != "indexer.natives" ||
		!strings.HasPrefix(lineOf(text, all.Mistakes[0].Origin.Line), "  natives: []") {
		t.Errorf("its mistakes are %v", err)
	}

	const native = "/dns4/a.example/tcp/4101/p2p/12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"
	_, cfg = loadYAML(t, draft(t, "indexer", nil, "--indexer.natives="+native))
	if _, err := modules.NewPlan(modules.Builtin(), cfg); err != nil {
		t.Error(err)
	}
}

func TestADraftHasWhatIsAskedFor(t *testing.T) {
	args := []string{
		"--modules.indexer", "--registry.ttl=90s", "--host.listen=/ip4/127.0.0.1/tcp/0", "--http.listen=",
		"--indexer.meta=zone=eu 1", "--indexer.meta=text=[a: #b]", "--log.format=json",
	}
	for _, role := range modules.Roles() {
		set, cfg := loadYAML(t, draft(t, role, map[string][]string{"indexer": {"indexer.natives"}}[role], args...))
		for key, want := range map[string]any{
			"modules.indexer": true, "modules.native": role == "native", "registry.ttl": 90 * time.Second,
			"host.listen": []string{"/ip4/127.0.0.1/tcp/0"}, "http.listen": "", "log.format": "json",
			"indexer.meta": map[string]string{"zone": "eu 1", "text": "[a: #b]"},
		} {
			if diff := cmp.Diff(want, set[key]); diff != "" {
				t.Errorf("%s: %s (-want +got)\n%s", role, key, diff)
			}
		}
		if origin := cfg.Origin("dht.prefix").Layer; (origin == config.File) != (role == "native") {
			t.Errorf("%s: dht.prefix is of layer %v", role, origin)
		}
	}
	if text := draft(t, "indexer", []string{"indexer.natives"}, "--registry.refresh=5s"); !strings.Contains(text, "\n  refresh: 5s\n") {
		t.Error("a key that an indexer has no use for is left out though it was asked for")
	}
}

func TestWithoutARoleADraftIsForWhatTheTogglesMakeOfTheNode(t *testing.T) {
	for _, tt := range []struct{ role, args, same string }{
		{"native", "", "--role=native"},
		{"native", "--modules=native", ""},
		{"indexer", "--modules=indexer", "--role=indexer"},
		{"indexer", "--modules=indexer,dht", ""},
		{"", "--modules=native,indexer", ""},
		{"", "--modules.indexer", ""},
		{"", "--modules=dht", ""},
	} {
		draft, err := modules.NewDraft(modules.Builtin(), "", config.Sources{Flags: flags(t, strings.Fields(tt.args)...)})
		if err != nil || draft.Role != tt.role {
			t.Errorf("%q: it is for the role %q, want %q: %v", tt.args, draft.Role, tt.role, err)
		}
		if role, ok := strings.CutPrefix(tt.same, "--role="); ok {
			same, err := modules.NewDraft(modules.Builtin(), role, config.Sources{Flags: flags(t)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(same.Text, draft.Text); diff != "" {
				t.Errorf("%q: (-%s +got)\n%s", tt.args, tt.same, diff)
			}
		}
	}
}

// What is left out in a file is another thing with native than without, whatever the
// role is.
func TestADraftSaysWhatIsTakenWhereNothingIsSet(t *testing.T) {
	for _, tt := range []struct {
		role, args string
		native     bool
	}{
		{"native", "", true},
		{"indexer", "", false},
		{"native", "--modules.native=false --modules.gossip=false", false},
		{"indexer", "--modules.native", true},
		{"", "--modules=dht", false},
		{"", "--modules=indexer", false},
		{"", "--modules=native,indexer", true},
	} {
		draft, err := modules.NewDraft(modules.Builtin(), tt.role, config.Sources{Flags: flags(t, strings.Fields(tt.args)...)})
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(strings.ReplaceAll(draft.Text, "\n  #", "\n")), " ")
		for said, want := range map[string]bool{
			"a native takes these": tt.native, "these are taken": !tt.native, "listen: [/ip4/0.0.0.0/tcp/4101,": tt.native,
			"a native takes this one": tt.native, "it takes a free port": !tt.native, "listen: 127.0.0.1:4180": tt.native,
		} {
			if strings.Contains(text, said) != want {
				t.Errorf("%q %q: it says %q: %t, want %t", tt.role, tt.args, said, !want, want)
			}
		}
	}
}

func TestADraftDoesNotSayThatAKeyIsLeftOutWhichIsSet(t *testing.T) {
	text := draft(t, "native", nil, "--host.listen=/ip4/127.0.0.1/tcp/1", "--http.listen=")
	if strings.Contains(text, "Left out, as here") {
		t.Errorf("it does:\n%s", text)
	}
}

func TestADraftHasWhatTheModulesThatAreOnUse(t *testing.T) {
	open := []string{"indexer.natives"}
	for _, tt := range []struct {
		arg                  string
		open                 []string
		refresh, dht, gossip bool
	}{
		{"--modules.dht=false", open, false, false, false},
		{"--modules.dht", open, false, true, false},
		{"--modules.native", nil, true, false, false},
	} {
		text := draft(t, "indexer", tt.open, tt.arg)
		for line, want := range map[string]bool{
			"  bootstrap: []\n": true, "  refresh: 30s\n": tt.refresh, "dht:\n": tt.dht, "gossip:\n": tt.gossip,
		} {
			if strings.Contains(text, "\n"+line) != want {
				t.Errorf("%s: it has %q: %t, want %t", tt.arg, line, !want, want)
			}
		}
	}
}

func TestADraftOfWhatDoesNotAddUpIsRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"--registry.ttl: 10s is not longer":            {"--registry.ttl=10s", "--registry.refresh=5s"},
		"--gossip.topic: must not be empty":            {"--gossip.topic="},
		`--registry.ttl: "x" is not a duration`:        {"--registry.ttl=x"},
		"--modules.gossip: gossip is how natives tell": {"--modules.gossip"},
	} {
		_, err := modules.NewDraft(modules.Builtin(), "indexer", config.Sources{Flags: flags(t, args...)})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s", args, err, want)
		}
	}
	if _, err := modules.NewDraft(modules.Builtin(), "nativ", config.Sources{}); err == nil || !strings.Contains(err.Error(), "native and indexer") {
		t.Errorf("an unknown role: %v", err)
	}
}

// A module from outside has its toggle and its section there, with its own comments, or
// else with the words of its summary and its tags.
func TestADraftHasTheModulesFromOutside(t *testing.T) {
	type settings struct {
		Path  string        `koanf:"path" help:"where the shelf's file is"`
		Every time.Duration `koanf:"every" help:"how often it is written"`
	}
	list := append(modules.Builtin(), modules.Module{
		Name: "shelf", Summary: "keeps entries on a shelf", Section: settings{Path: "shelf.db", Every: time.Minute}, Wire: modules.Provide(),
	})
	list = append(list, modules.Module{
		Name: "attic", Summary: "keeps old entries", Section: settings{Path: "attic.db"}, Wire: modules.Provide(),
		About: "Keep old entries. Off: they are gone.",
		Comments: map[string]modules.Comment{
			"":     {Text: "What is in the attic."},
			"path": {Text: "The attic's file.", Indexer: "The attic's file, of an indexer too."},
		},
	})
	file := map[string]string{"native": "The attic's file.", "indexer": "The attic's file, of an indexer too."}
	for _, role := range modules.Roles() {
		draft, err := modules.NewDraft(list, role, config.Sources{})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"\n  # Keep old entries. Off: they are gone.\n  attic: false\n",
			"\n# What is in the attic.\nattic:\n  # " + file[role] + "\n  path: attic.db\n  # How often it is written.\n",
			"\n  # Keeps entries on a shelf.\n  shelf: false\n",
			"\nshelf:\n  # Where the shelf's file is.\n  path: shelf.db\n  # How often it is written.\n  every: 60s\n",
		} {
			if !strings.Contains(draft.Text, want) {
				t.Errorf("%s: there is no %q in\n%s", role, want, draft.Text)
			}
		}
	}
}

// draft returns the file that config init writes for a role, of which open are still
// to be filled in.
func draft(t *testing.T, role string, open []string, args ...string) string {
	t.Helper()
	got, err := modules.NewDraft(modules.Builtin(), role, config.Sources{Flags: flags(t, args...)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(open, got.Open); diff != "" {
		t.Errorf("still to be filled in (-want +got)\n%s", diff)
	}
	if role != "" && got.Role != role {
		t.Errorf("it is for the role %q, want %q", got.Role, role)
	}
	return got.Text
}

func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("ocnode", pflag.ContinueOnError)
	modules.Schema(modules.Builtin()).AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func lineOf(text string, line int) string { return strings.Split(text, "\n")[line-1] }

// defaults returns every key with its default.
func defaults() map[string]any {
	all := make(map[string]any)
	for _, key := range modules.Schema(modules.Builtin()).Keys() {
		all[key.Name] = key.Default
	}
	return all
}

// loadYAML returns the keys that a file sets, and the configuration that it makes.
func loadYAML(t *testing.T, text string) (set map[string]any, cfg *config.Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	schema := modules.Schema(modules.Builtin())
	cfg, err := schema.Load(config.Sources{File: path})
	if err != nil {
		t.Fatal(err)
	}
	set = make(map[string]any)
	for _, key := range schema.Keys() {
		if cfg.IsSet(key.Name) {
			set[key.Name] = cfg.Value(key.Name)
		}
	}
	return set, cfg
}
