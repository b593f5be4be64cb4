package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/opencloud/ocnode/modules/config"
)

type registry struct {
	TTL       time.Duration `koanf:"ttl" help:"how long an entry lives"`
	Heartbeat time.Duration `koanf:"heartbeat" help:"how often an indexer registers"`
}

type indexer struct {
	Natives []string          `koanf:"natives" help:"where to register"`
	Meta    map[string]string `koanf:"meta" help:"what to tell of oneself"`
}

type host struct {
	Listen []string `koanf:"listen" help:"where to listen"`
	Limit  int      `koanf:"limit" help:"how many connections"`
	Relay  bool     `koanf:"relay" help:"carry for others"`
}

type http struct {
	Listen  string        `koanf:"listen" help:"where to serve HTTP"`
	Banner  string        `koanf:"banner"`
	Retries int           `koanf:"retries"`
	Timeout time.Duration `koanf:"timeout"`
}

// schema has a key of every type.
func schema() *config.Schema {
	return config.NewSchema(
		[]config.Module{
			{Name: "native", Default: true, Help: "the registry role"},
			{Name: "indexer", Help: "the indexer role"},
			{Name: "dht", Default: true},
			{Name: "gossip", Default: true},
		},
		[]config.Section{
			{Name: "registry", Default: registry{TTL: 66 * time.Second, Heartbeat: time.Minute}},
			{Name: "indexer", Default: indexer{}},
			{Name: "host", Default: host{Listen: []string{"/ip4/0.0.0.0/tcp/4101"}, Limit: 64}},
			{Name: "http", Default: http{Listen: "127.0.0.1:4180"}},
		},
	)
}

// flags parses a command line.
func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("ocnode", pflag.ContinueOnError)
	schema().AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

// enter makes an empty directory the working directory and puts config.yaml there.
func enter(t *testing.T, yaml string) {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "config.yaml", yaml)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, src config.Sources) *config.Config {
	t.Helper()
	c, err := schema().Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get[T any](t *testing.T, c *config.Config, section string) T {
	t.Helper()
	got, err := config.Get[T](c, section)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestDefaults(t *testing.T) {
	c := load(t, config.Sources{})
	equal(t, get[registry](t, c, "registry"), registry{TTL: 66 * time.Second, Heartbeat: time.Minute})
	equal(t, get[indexer](t, c, "indexer"), indexer{})
	equal(t, get[host](t, c, "host"), host{Listen: []string{"/ip4/0.0.0.0/tcp/4101"}, Limit: 64})
	equal(t, get[http](t, c, "http"), http{Listen: "127.0.0.1:4180"})
	equal(t, c.Modules(), map[string]bool{"native": true, "indexer": false, "dht": true, "gossip": true})
	equal(t, c.File(), "")
	equal(t, c.Origin("registry.ttl").String(), "default")
	if c.IsSet("registry.ttl") {
		t.Error("a default counts as set")
	}
	if _, err := config.Get[registry](c, "registy"); err == nil {
		t.Error("a section that does not exist was found")
	}
}

// samples are a value for each type, other than any default, as text and in YAML.
var samples = map[string]struct {
	text, yaml string
	want       any
}{
	"string":   {"Some Text, and=more", "Some Text, and=more", "Some Text, and=more"},
	"bool":     {"true", "true", true},
	"int":      {"-12", "-12", -12},
	"duration": {"1h1.5s", "1h1.5s", time.Hour + 1500*time.Millisecond},
	"list":     {"B, a", "[B, a]", []string{"B", "a"}},
	"map":      {"Zone.x=A=b,n=1.10,e=", "{Zone.x: A=b, n: 1.10, e: ''}", map[string]string{"Zone.x": "A=b", "n": "1.10", "e": ""}},
}

func TestEveryKeyMeansTheSameInEveryLayer(t *testing.T) {
	for _, key := range schema().Keys() {
		t.Run(key.Name, func(t *testing.T) {
			sample, ok := samples[key.Type]
			if !ok {
				t.Fatalf("no sample of a %s", key.Type)
			}
			section, name, _ := strings.Cut(key.Name, ".")
			enter(t, fmt.Sprintf("# first\n%s:\n  %s: %s\n", section, name, sample.yaml))
			for origin, src := range map[string]config.Sources{
				"config.yaml:3": {File: "config.yaml"},
				key.Env():       {Environ: []string{key.Env() + "=" + sample.text}},
				"--" + key.Name: {Flags: flags(t, "--"+key.Name+"="+sample.text)},
			} {
				c := load(t, src)
				equal(t, c.Value(key.Name), sample.want)
				equal(t, c.Origin(key.Name).String(), origin)
				if !c.IsSet(key.Name) {
					t.Errorf("%s does not count as set", origin)
				}
			}
		})
	}
}

func TestDefaultsReadBackFromTheirText(t *testing.T) {
	for _, key := range schema().Keys() {
		c := load(t, config.Sources{Environ: []string{key.Env() + "=" + config.Text(key.Default)}})
		equal(t, config.Text(c.Value(key.Name)), config.Text(key.Default))
	}
}

func TestLaterLayersWin(t *testing.T) {
	enter(t, "registry: {ttl: 1s}\nindexer: {meta: {file: f}, natives: [f, g]}\n")
	environ := []string{"OCNODE_REGISTRY__TTL=2s", "OCNODE_INDEXER__META=env=e", "OCNODE_INDEXER__NATIVES=e"}
	args := []string{"--registry.ttl", "3s", "--indexer.meta", "flag=x", "--indexer.natives", "x,y", "--indexer.natives", "z"}
	for name, tt := range map[string]struct {
		src  config.Sources
		want []any
	}{
		"file": {
			config.Sources{File: "config.yaml"},
			[]any{time.Second, map[string]string{"file": "f"}, []string{"f", "g"}},
		},
		"environment over file": {
			config.Sources{File: "config.yaml", Environ: environ},
			[]any{2 * time.Second, map[string]string{"env": "e"}, []string{"e"}},
		},
		"flags over environment": {
			config.Sources{File: "config.yaml", Environ: environ, Flags: flags(t, args...)},
			[]any{3 * time.Second, map[string]string{"flag": "x"}, []string{"x", "y", "z"}},
		},
		"a flag not given is no layer": {
			config.Sources{File: "config.yaml", Flags: flags(t)},
			[]any{time.Second, map[string]string{"file": "f"}, []string{"f", "g"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := load(t, tt.src)
			equal(t, []any{c.Value("registry.ttl"), c.Value("indexer.meta"), c.Value("indexer.natives")}, tt.want)
			equal(t, get[registry](t, c, "registry").Heartbeat, time.Minute)
		})
	}
}

func TestEmptyValues(t *testing.T) {
	c := load(t, config.Sources{
		Environ: []string{"OCNODE_HTTP__LISTEN=", "OCNODE_HOST__LISTEN=", "OCNODE_INDEXER__META="},
	})
	equal(t, get[http](t, c, "http"), http{})
	equal(t, c.Value("host.listen"), []string{})
	equal(t, c.Value("indexer.meta"), map[string]string{})

	enter(t, "http: {listen: ''}\nhost: {listen: []}\nindexer: {meta: {}}\n")
	c = load(t, config.Sources{File: "config.yaml"})
	equal(t, get[http](t, c, "http"), http{})
	equal(t, get[host](t, c, "host"), host{Listen: []string{}, Limit: 64})
	equal(t, c.Value("indexer.meta"), map[string]string{})
}

func TestModules(t *testing.T) {
	only := func(names ...string) map[string]bool {
		on := map[string]bool{"native": false, "indexer": false, "dht": false, "gossip": false}
		for _, name := range names {
			on[name] = true
		}
		return on
	}
	for name, tt := range map[string]struct {
		yaml, origin string
		environ      []string
		args         []string
		want         map[string]bool
	}{
		"the file sets one toggle": {
			yaml: "modules:\n  indexer: true", origin: "config.yaml:2",
			want: only("native", "indexer", "dht", "gossip"),
		},
		"the variable replaces the file's": {
			yaml: "modules: {indexer: true}", environ: []string{"OCNODE_MODULES=native"}, origin: "OCNODE_MODULES",
			want: only("native"),
		},
		"the flag replaces both": {
			yaml: "modules: {indexer: true}", environ: []string{"OCNODE_MODULES=native"},
			args: []string{"--modules", "dht, gossip", "--modules", "dht"}, origin: "--modules",
			want: only("dht", "gossip"),
		},
		"the flag replaces a variable's toggle": {
			environ: []string{"OCNODE_MODULES__INDEXER=true"}, args: []string{"--modules=dht"}, origin: "--modules",
			want: only("dht"),
		},
		"a toggle's flag goes on top": {
			environ: []string{"OCNODE_MODULES=native"}, args: []string{"--modules.indexer"}, origin: "--modules.indexer",
			want: only("native", "indexer"),
		},
		"a toggle's variable": {
			environ: []string{"OCNODE_MODULES__NATIVE=0", "OCNODE_MODULES__INDEXER=1"}, origin: "OCNODE_MODULES__INDEXER",
			want: only("indexer", "dht", "gossip"),
		},
		"none": {
			args: []string{"--modules="}, origin: "--modules",
			want: only(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			enter(t, tt.yaml+"\nregistry: {ttl: 5s}\n")
			c := load(t, config.Sources{File: "config.yaml", Environ: tt.environ, Flags: flags(t, tt.args...)})
			equal(t, c.Modules(), tt.want)
			equal(t, c.Origin("modules.indexer").String(), tt.origin)
			equal(t, c.Origin("modules").String(), tt.origin)
			equal(t, c.Value("registry.ttl"), 5*time.Second)
		})
	}
}

func TestModulesBesideAToggleIsAUsageError(t *testing.T) {
	enter(t, "not: yaml: at all")
	_, err := schema().Load(config.Sources{File: "config.yaml", Flags: flags(t, "--modules.dht", "--modules", "native")})
	if !errors.Is(err, config.ErrUsage) {
		t.Fatalf("not a usage error: %v", err)
	}
	equal(t, err.Error(), "--modules sets every toggle and cannot go with --modules.dht; give one of them")
}

func TestWhichFile(t *testing.T) {
	enter(t, "registry: {ttl: 1s}")
	write(t, "env.yaml", "registry: {ttl: 2s}")
	write(t, "flag.yaml", "registry: {ttl: 3s}")
	for name, tt := range map[string]struct {
		src  config.Sources
		file string
		ttl  time.Duration
	}{
		"the default":             {config.Sources{File: "config.yaml"}, "config.yaml", time.Second},
		"a default that is not":   {config.Sources{File: "absent.yaml"}, "", 66 * time.Second},
		"the variable":            {config.Sources{File: "config.yaml", Environ: []string{"OCNODE_CONFIG=env.yaml"}}, "env.yaml", 2 * time.Second},
		"none, says the variable": {config.Sources{File: "config.yaml", Environ: []string{"OCNODE_CONFIG="}}, "", 66 * time.Second},
		"the flag": {
			config.Sources{File: "config.yaml", Environ: []string{"OCNODE_CONFIG=env.yaml"}, Flags: flags(t, "--config", "flag.yaml")},
			"flag.yaml", 3 * time.Second,
		},
		"none, says the flag": {config.Sources{File: "config.yaml", Flags: flags(t, "--config=")}, "", 66 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c := load(t, tt.src)
			equal(t, c.File(), tt.file)
			equal(t, c.Value("registry.ttl"), tt.ttl)
		})
	}
}

func TestForeignVariablesAreLeftAlone(t *testing.T) {
	c := load(t, config.Sources{Environ: []string{
		"OCNODE_PORT_4101_TCP=tcp://10.0.0.1:4101", "OCNODE_SERVICE_HOST=10.0.0.1", "OCNODE_REGISTRY_TTL=1s",
		"XOCNODE_REGISTRY__TTL=1s", "ocnode_registry__ttl=1s", "OCNODE", "=C:=C:\\",
	}})
	for _, key := range schema().Keys() {
		if c.IsSet(key.Name) {
			t.Errorf("%s was set by %s", key.Name, c.Origin(key.Name))
		}
	}
}

func TestUsageShowsHelpAndDefault(t *testing.T) {
	squeeze := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	usage := squeeze(flags(t).FlagUsages())
	for _, want := range []string{
		"--registry.ttl duration how long an entry lives (default 66s)",
		"--host.listen list where to listen (default /ip4/0.0.0.0/tcp/4101)",
		"--modules list the modules that are on, all others are off: any of native,indexer,dht,gossip",
		"--modules.native the registry role (default true)",
		`--config file the configuration file, "" for none (default config.yaml, if it exists)`,
	} {
		if !strings.Contains(usage, want) {
			t.Errorf("%q is missing in\n%s", want, usage)
		}
	}
}

func TestKeys(t *testing.T) {
	keys := schema().Keys()
	equal(t, keys[0], config.Key{Name: "modules.native", Type: "bool", Default: true, Help: "the registry role"})
	equal(t, keys[4], config.Key{Name: "registry.ttl", Type: "duration", Default: 66 * time.Second, Help: "how long an entry lives"})
	equal(t, len(keys), 15)
}

func TestASectionOfUnknownTypesIsABug(t *testing.T) {
	for name, section := range map[string]any{
		"type": struct {
			X uint8 `koanf:"x"`
		}{},
		"tag": struct{ X string }{},
		"twice": struct {
			X string `koanf:"x"`
			Y string `koanf:"x"`
		}{},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			config.NewSchema(nil, []config.Section{{Name: "s", Default: section}})
		})
	}
}

func TestText(t *testing.T) {
	for want, value := range map[string]any{
		"66s": 66 * time.Second, "0s": time.Duration(0), "2m": 2 * time.Minute, "2m1s": 121 * time.Second, "1h": time.Hour,
		"1h0m5s": time.Hour + 5*time.Second, "1h30m": 90 * time.Minute, "1.5s": 1500 * time.Millisecond, "100h": 100 * time.Hour,
		"a,b": []string{"a", "b"}, "a=1,b=2": map[string]string{"b": "2", "a": "1"}, "5": 5, "true": true, "x": "x",
	} {
		equal(t, config.Text(value), want)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"native", "indexer", "dht", "gossip"}
	for word, want := range map[string]string{
		"nativ": "native", "NATIVE": "native", "natives": "native", "dth": "dht", "dhtt": "dht", "gosip": "gossip",
		"http": "", "": "", "x": "", "xyz": "", "registry": "", strings.Repeat("native", 1000): "",
	} {
		equal(t, config.Nearest(word, known), want)
	}
	equal(t, config.Nearest("ab", []string{"abd", "abc"}), "abd")
	equal(t, config.Nearest("abc", nil), "")
}

func TestAModulesOwnMistakesHaveTheSameOrigins(t *testing.T) {
	enter(t, "registry:\n  heartbeat: 70s\n  ttl: 60s\n")
	c := load(t, config.Sources{
		File: "config.yaml", Environ: []string{"OCNODE_HTTP__LISTEN=here"}, Flags: flags(t, "--host.limit=0"),
	})
	err := config.NewError([]config.Mistake{
		c.Mistake("host.limit", "0 is too few; write 1 or more"),
		c.Mistake("http.listen", "%q has no port", "here"),
		c.Mistake("registry.ttl", "60s is not longer than the heartbeat, %s", "70s"),
		c.Mistake("registry.heartbeat", "too long"),
		c.Mistake("host.listen", "cannot be bound"),
		c.Mistake("modules", "nothing is on"),
	})
	equal(t, err.Error(), strings.Join([]string{
		"host.listen: cannot be bound",
		"modules: nothing is on",
		"config.yaml:2: registry.heartbeat: too long",
		"config.yaml:3: registry.ttl: 60s is not longer than the heartbeat, 70s",
		`OCNODE_HTTP__LISTEN: "here" has no port`,
		"--host.limit: 0 is too few; write 1 or more",
	}, "\n"))
	var all *config.Error
	if !errors.As(err, &all) {
		t.Fatalf("a %T", err)
	}
	equal(t, all.Mistakes[3].Value, "60s")
	if err := config.NewError(nil); err != nil {
		t.Errorf("an error of no mistakes: %v", err)
	}
}

func TestWhatIsRightBesideAMistakeIsThereToBeExamined(t *testing.T) {
	enter(t, "host:\n  listen:\n  - a\n  -\n  - b\n  limit: x\nindexer:\n  meta:\n    a: [b]\n    c.d: e\n    c.d: f\n  natives:\n  - g\nregistry.heartbeat: 1s\n"+
		"registry:\n  ttl: 5\nregistry.ttl: 6s\nhttp: {banner: b}\nhttp.banner: c\n")
	c, err := schema().Load(config.Sources{File: "config.yaml", Environ: []string{"OCNODE_REGISTRY__TTL=7s", "OCNODE_INDEXER__NATIVES=h"}})
	if err == nil {
		t.Fatal("it has no mistakes")
	}
	equal(t, c.Value("host.listen"), []string{"a", "b"})
	equal(t, c.Value("indexer.meta"), map[string]string{"c.d": "e"})
	for _, tt := range []struct {
		key, item, origin string
	}{
		{"host.listen", "0", "config.yaml:3"},
		{"host.listen", "1", "config.yaml:5"},
		{"host.listen", "2", "config.yaml:2"},
		{"indexer.meta", "c.d", "config.yaml:10"},
		{"indexer.natives", "0", "OCNODE_INDEXER__NATIVES"}, // and not the file, which it went over
		{"host.limit", "0", "default"},
	} {
		equal(t, c.ItemOrigin(tt.key, tt.item).String(), tt.origin)
	}
	for _, tt := range []struct {
		key             string
		malformed, lost bool
	}{
		{"host.listen", true, false},
		{"indexer.meta", true, false},
		{"indexer.natives", false, false},
		{"host.limit", true, true},
		{"registry.heartbeat", true, true}, // meant to be 1s
		{"registry.ttl", false, false},     // meant to be 7s, whatever the file says
		{"http.banner", false, false},
	} {
		if got := [2]bool{c.Malformed(tt.key), c.Lost(tt.key)}; got != [2]bool{tt.malformed, tt.lost} {
			t.Errorf("%s: malformed and lost are %v, want %v and %v", tt.key, got, tt.malformed, tt.lost)
		}
	}
}

func TestWhatIsRightBesideAMistakeInAVariableIsThereToo(t *testing.T) {
	enter(t, "host: {listen: [f]}\n")
	c, err := schema().Load(config.Sources{File: "config.yaml", Environ: []string{"OCNODE_HOST__LISTEN=a,,b", "OCNODE_INDEXER__META=a=1,b,a=2,c=3"}})
	if err == nil {
		t.Fatal("it has no mistakes")
	}
	equal(t, c.Value("host.listen"), []string{"a", "b"})
	equal(t, c.Origin("host.listen").String(), "OCNODE_HOST__LISTEN")
	equal(t, c.Value("indexer.meta"), map[string]string{"a": "1", "c": "3"})
	for _, key := range []string{"host.listen", "indexer.meta"} {
		if !c.Malformed(key) || c.Lost(key) {
			t.Errorf("%s: malformed and lost are %t and %t, want true and false", key, c.Malformed(key), c.Lost(key))
		}
	}
}

func TestAConfigDoesNotShareItsValues(t *testing.T) {
	s := schema()
	first, err := s.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	get[host](t, first, "host").Listen[0] = "changed"
	second, err := s.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*config.Config{first, second} {
		equal(t, get[host](t, c, "host").Listen, []string{"/ip4/0.0.0.0/tcp/4101"})
	}
}

func TestAFileOfAnySourceIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	fill := func(size int) string { return "#" + strings.Repeat("x", size-1) }
	write(t, path, fill(config.MaxFileBytes))
	load(t, config.Sources{File: path})
	write(t, path, fill(config.MaxFileBytes+1))
	_, err := schema().Load(config.Sources{File: path})
	if err == nil {
		t.Fatal("too large a file was read")
	}
	equal(t, err.Error(), path+": larger than 1048576 bytes; name a readable YAML file, or none")
}

func TestAReportIsBounded(t *testing.T) {
	var junk strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&junk, "junk%d: 1\n", i)
	}
	enter(t, junk.String())
	_, err := schema().Load(config.Sources{File: "config.yaml", Flags: flags(t, "--host.limit=x")})
	var all *config.Error
	if !errors.As(err, &all) {
		t.Fatalf("a %T", err)
	}
	equal(t, len(all.Mistakes), 101)
	equal(t, all.Mistakes[100].Error(), "and 901 more; mend these first")
}
