package config_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/opencloud/ocnode/modules/config"
)

func TestMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		yaml    string
		environ []string
		args    []string
		want    []string
	}{
		// Names.
		"a misspelt key": {
			yaml: "\n\nregistry:\n  tll: 66s",
			want: []string{"config.yaml:4: registry.tll: unknown key; did you mean registry.ttl?"},
		},
		"a misspelt section": {
			yaml: "registri: {ttl: 66s}",
			want: []string{"config.yaml:1: registri: unknown key; did you mean registry?"},
		},
		"a key at the top level": {
			yaml: "ttl: 66s",
			want: []string{"config.yaml:1: ttl: unknown key; did you mean registry.ttl?"},
		},
		"a misspelt key at the top level": {
			yaml: "natves: []",
			want: []string{"config.yaml:1: natves: unknown key; did you mean indexer.natives?"},
		},
		"a key that two sections have": {
			yaml: "listen: ''",
			want: []string{"config.yaml:1: listen: unknown key; did you mean host.listen or http.listen?"},
		},
		"a key in the wrong section": {
			yaml: "host: {heartbeat: 1s}",
			want: []string{"config.yaml:1: host.heartbeat: unknown key; did you mean registry.heartbeat?"},
		},
		"a key with a dot": {
			yaml: "registry.ttl: 1s",
			want: []string{"config.yaml:1: registry.ttl: unknown key; write registry: {ttl: …}"},
		},
		"a key like no other": {
			yaml: "registry: {shape: round}",
			want: []string{"config.yaml:1: registry.shape: unknown key; the keys here are registry.ttl, registry.heartbeat"},
		},
		"a section like no other": {
			yaml: "weather: fine",
			want: []string{"config.yaml:1: weather: unknown key; the sections are modules, registry, indexer, host, http"},
		},
		"a key that would upset a terminal": {
			yaml: "\"\\e[2Jweather\": fine",
			want: []string{`config.yaml:1: "\x1b[2Jweather": unknown key; the sections are modules, registry, indexer, host, http`},
		},
		"a merge key": {
			yaml: "registry: &r {ttl: 1s}\nhost: {<<: *r}",
			want: []string{"config.yaml:2: host.<<: unknown key; the keys here are host.listen, host.limit, host.relay"},
		},
		"unknown modules": {
			yaml: "modules: {nativ: true}", environ: []string{"OCNODE_MODULES__DTH=1"}, args: []string{"--modules=dht,http,gosip"},
			want: []string{
				`config.yaml:1: modules.nativ: unknown module "nativ", did you mean native?; the modules are native, indexer, dht, gossip`,
				`OCNODE_MODULES__DTH: unknown module "dth", did you mean dht?; the modules are native, indexer, dht, gossip`,
				`--modules: unknown module "http"; the modules are native, indexer, dht, gossip`,
				`--modules: unknown module "gosip", did you mean gossip?; the modules are native, indexer, dht, gossip`,
			},
		},
		"an empty module": {
			environ: []string{"OCNODE_MODULES=native,,dht"}, args: []string{"--modules=,"},
			want: []string{
				`OCNODE_MODULES: "native,,dht" has an empty item; write e.g. a,b`,
				`--modules: "," has an empty item; write e.g. a,b`,
			},
		},
		"an empty module beside an unknown one": {
			args: []string{"--modules=native,,dth"},
			want: []string{
				`--modules: "native,,dth" has an empty item; write e.g. a,b`,
				`--modules: unknown module "dth", did you mean dht?; the modules are native, indexer, dht, gossip`,
			},
		},
		"all toggles and one, by variable": {
			environ: []string{"OCNODE_MODULES__DHT=true", "OCNODE_MODULES=native"},
			want:    []string{"OCNODE_MODULES__DHT: OCNODE_MODULES sets every toggle and cannot go with it; set one of them"},
		},
		"unknown variables": {
			environ: []string{"OCNODE_REGISTRY__TLL=1s", "OCNODE_registry__ttl=1s", "OCNODE_HOST__TTL=1s", "OCNODE_FOO__SHAPE=1", "OCNODE___="},
			want: []string{
				"OCNODE_FOO__SHAPE: unknown key; the sections are modules, registry, indexer, host, http",
				"OCNODE_HOST__TTL: unknown key; did you mean OCNODE_REGISTRY__TTL?",
				"OCNODE_REGISTRY__TLL: unknown key; did you mean OCNODE_REGISTRY__TTL?",
				"OCNODE___: unknown key; the sections are modules, registry, indexer, host, http",
				"OCNODE_registry__ttl: unknown key; did you mean OCNODE_REGISTRY__TTL?",
			},
		},

		// Values.
		"not a duration": {
			yaml: "registry:\n  ttl: abc\n  heartbeat: 60 s", environ: []string{"OCNODE_REGISTRY__TTL=66sec"}, args: []string{"--registry.ttl", ""},
			want: []string{
				`config.yaml:2: registry.ttl: "abc" is not a duration; write e.g. 66s`,
				`config.yaml:3: registry.heartbeat: "60 s" is not a duration; write e.g. 60s`,
				`OCNODE_REGISTRY__TTL: "66sec" is not a duration; write e.g. 66s`,
				`--registry.ttl: "" is not a duration; write e.g. 66s`,
			},
		},
		"a duration without a unit": {
			yaml: "registry: {ttl: 66, heartbeat: '1.5'}", environ: []string{"OCNODE_REGISTRY__TTL=0"}, args: []string{"--registry.ttl=-5"},
			want: []string{
				`config.yaml:1: registry.ttl: "66" has no unit; write e.g. 66s`,
				`config.yaml:1: registry.heartbeat: "1.5" has no unit; write e.g. 1.5s`,
				`OCNODE_REGISTRY__TTL: "0" has no unit; write e.g. 0s`,
				`--registry.ttl: "-5" has no unit; write e.g. -5s`,
			},
		},
		"not a boolean": {
			yaml: "modules:\n  native: yes\n  indexer: 'true'\n  dht: 1\n  gossip: [true]", environ: []string{"OCNODE_HOST__RELAY="}, args: []string{"--host.relay=on"},
			want: []string{
				`config.yaml:2: modules.native: "yes" is not a boolean; write true or false`,
				`config.yaml:3: modules.indexer: "true" in quotes is not a boolean; write true or false`,
				`config.yaml:4: modules.dht: "1" is not a boolean; write true or false`,
				`config.yaml:5: modules.gossip: a list is not a boolean; write true or false`,
				`OCNODE_HOST__RELAY: "" is not a boolean; write true or false`,
				`--host.relay: "on" is not a boolean; write true or false`,
			},
		},
		"not a whole number": {
			yaml: "host: {limit: 1.5}", environ: []string{"OCNODE_HOST__LIMIT=010"}, args: []string{"--host.limit=99999999999999999999"},
			want: []string{
				`config.yaml:1: host.limit: "1.5" is not a whole number; write e.g. 64`,
				`OCNODE_HOST__LIMIT: "010" is not a whole number; write e.g. 64`,
				`--host.limit: "99999999999999999999" is not a whole number; write e.g. 64`,
			},
		},
		"a number in quotes": {
			yaml: `host: {limit: "5"}`,
			want: []string{`config.yaml:1: host.limit: "5" in quotes is not a whole number; write e.g. 64`},
		},
		"a type whose default is no example": {
			yaml: "http:\n  banner: []\n  retries: x\n  timeout: x",
			want: []string{
				"config.yaml:2: http.banner: a list is not a string; write e.g. text",
				`config.yaml:3: http.retries: "x" is not a whole number; write e.g. 10`,
				`config.yaml:4: http.timeout: "x" is not a duration; write e.g. 10s`,
			},
		},
		"not a string": {
			yaml: "http:\n  listen:\n    port: 80",
			want: []string{"config.yaml:2: http.listen: a map is not a string; write e.g. 127.0.0.1:4180"},
		},
		"a tag": {
			yaml: "http: {listen: !env HTTP}",
			want: []string{`config.yaml:1: http.listen: the tag "!env" is not supported; write the value alone`},
		},
		"not a list": {
			yaml: "host: {listen: /ip4/0.0.0.0/tcp/1}", environ: []string{"OCNODE_HOST__LISTEN=a,,b"},
			want: []string{
				`config.yaml:1: host.listen: "/ip4/0.0.0.0/tcp/1" is not a list; write e.g. [a, b]`,
				`OCNODE_HOST__LISTEN: "a,,b" has an empty item; write e.g. a,b`,
			},
		},
		"not a list of strings": {
			yaml: "host:\n  listen:\n  - a\n  -\n  - {b: c}\n  - ''",
			want: []string{
				"config.yaml:4: host.listen: an empty item; write e.g. [a, b]",
				"config.yaml:5: host.listen: a map is not a string; write e.g. text",
				"config.yaml:6: host.listen: an empty item; write e.g. [a, b]",
			},
		},
		"not a map": {
			yaml: "indexer: {meta: [a, b]}", environ: []string{"OCNODE_INDEXER__META=a=1,b"}, args: []string{"--indexer.meta=a=1", "--indexer.meta=a=2"},
			want: []string{
				"config.yaml:1: indexer.meta: a list is not a map; write e.g. {name: value}",
				`OCNODE_INDEXER__META: "b" is not name=value; write e.g. name=value,name=value`,
				`--indexer.meta: "a" is given twice; remove one`,
			},
		},
		"not a map of strings": {
			yaml: "indexer:\n  meta:\n    a:\n    b: [c]\n    '': d\n    e: f\n    e: g", args: []string{"--indexer.meta==x"}, environ: []string{"OCNODE_INDEXER__META=a=1,"},
			want: []string{
				`config.yaml:3: indexer.meta.a: no value; write "" for an empty one`,
				"config.yaml:4: indexer.meta.b: a list is not a string; write e.g. text",
				"config.yaml:5: indexer.meta: an empty name; write e.g. {name: value}",
				"config.yaml:7: indexer.meta.e: given twice, first in line 6; remove one",
				`OCNODE_INDEXER__META: "a=1," has an empty item; write e.g. name=value,name=value`,
				`--indexer.meta: "=x" is not name=value; write e.g. name=value,name=value`,
			},
		},
		"not a map of strings, in several ways at once": {
			args: []string{"--indexer.meta=a=1,,b,a=2,c=3"},
			want: []string{
				`--indexer.meta: "a=1,,b,a=2,c=3" has an empty item; write e.g. name=value,name=value`,
				`--indexer.meta: "b" is not name=value; write e.g. name=value,name=value`,
				`--indexer.meta: "a" is given twice; remove one`,
			},
		},
		"no value": {
			yaml: "registry: {ttl: }\nhost:\n  listen:\n  # - /ip4/0.0.0.0/tcp/4101\n  limit: ~\nindexer: {meta: null}",
			want: []string{
				"config.yaml:1: registry.ttl: no value; write e.g. 66s, or leave the key out",
				"config.yaml:3: host.listen: no value; write e.g. [a, b], or leave the key out",
				"config.yaml:5: host.limit: no value; write e.g. 64, or leave the key out",
				"config.yaml:6: indexer.meta: no value; write e.g. {name: value}, or leave the key out",
			},
		},
		"a long value is cut": {
			environ: []string{"OCNODE_REGISTRY__TTL=\n" + strings.Repeat("é", 200)},
			want:    []string{`OCNODE_REGISTRY__TTL: "\n` + strings.Repeat("é", 119) + `"… is not a duration; write e.g. 66s`},
		},

		// The shape of the file.
		"keys given twice": {
			yaml: "registry: {ttl: 1s}\nregistry:\n  ttl: 2s\nhost:\n  limit: 1\n  relay: true\n  limit: 1",
			want: []string{
				"config.yaml:2: registry: given twice, first in line 1; remove one",
				"config.yaml:7: host.limit: given twice, first in line 5; remove one",
			},
		},
		"keys given twice, with mistakes in either": {
			yaml: "registry: {ttl: 1}\nregistry:\n  ttl: x\n  tll: 1s\nregistry: 5\nhost: {limit: 1, limit: x, limit: 2}",
			want: []string{
				`config.yaml:1: registry.ttl: "1" has no unit; write e.g. 1s`,
				"config.yaml:2: registry: given twice, first in line 1; remove one",
				`config.yaml:3: registry.ttl: "x" is not a duration; write e.g. 66s`,
				"config.yaml:4: registry.tll: unknown key; did you mean registry.ttl?",
				"config.yaml:5: registry: given twice, first in line 1; remove one",
				`config.yaml:5: registry: "5" is not a section; write e.g. registry: {ttl: 66s}`,
				"config.yaml:6: host.limit: given twice, first in line 6; remove one",
				`config.yaml:6: host.limit: "x" is not a whole number; write e.g. 64`,
				"config.yaml:6: host.limit: given twice, first in line 6; remove one",
			},
		},
		"not a section": {
			yaml: "registry: 5\nmodules: [native, dht]\nhttp: ''",
			want: []string{
				`config.yaml:1: registry: "5" is not a section; write e.g. registry: {ttl: 66s}`,
				"config.yaml:2: modules: a list is not a section; write e.g. modules: {native: true}",
				`config.yaml:3: http: "" is not a section; write e.g. http: {listen: 127.0.0.1:4180}`,
			},
		},
		"not a map of sections": {
			yaml: "# a list\n- registry",
			want: []string{"config.yaml:2: a list is not a map of sections; the sections are modules, registry, indexer, host, http"},
		},
		"keys that are no words": {
			yaml: "? [a]\n: b\nregistry: {? {ttl: 1s} : 1s}",
			want: []string{"config.yaml:1: a list as a key; write a word", "config.yaml:3: registry: a map as a key; write a word"},
		},
		"a second document": {
			yaml: "registry: {ttl: 1s}\n---\nhost: {limit: 1}\n",
			want: []string{"config.yaml:2: a second document; put everything into one"},
		},
		"aliases that contain themselves": {
			yaml: "registry: &r {ttl: *r}\nindexer: &i\n  meta: *i\nhost: {listen: &l [*l]}",
			want: []string{
				"config.yaml:1: registry.ttl: a map is not a duration; write e.g. 66s",
				"config.yaml:3: indexer.meta.meta: a map is not a string; write e.g. text",
				"config.yaml:4: host.listen: a list is not a string; write e.g. text",
			},
		},
		"all mistakes at once, in their order": {
			yaml:    "weather: fine\nhost: {limit: x}\nregistry:\n  ttl: 5\nnative: true",
			environ: []string{"OCNODE_HTTP__LISTN=x", "OCNODE_HOST__LIMIT=x"},
			args:    []string{"--registry.ttl=x", "--host.limit=x"},
			want: []string{
				"config.yaml:1: weather: unknown key; the sections are modules, registry, indexer, host, http",
				`config.yaml:2: host.limit: "x" is not a whole number; write e.g. 64`,
				`config.yaml:4: registry.ttl: "5" has no unit; write e.g. 5s`,
				"config.yaml:5: native: unknown key; did you mean modules.native?",
				`OCNODE_HOST__LIMIT: "x" is not a whole number; write e.g. 64`,
				"OCNODE_HTTP__LISTN: unknown key; did you mean OCNODE_HTTP__LISTEN?",
				`--host.limit: "x" is not a whole number; write e.g. 64`,
				`--registry.ttl: "x" is not a duration; write e.g. 66s`,
			},
		},

		// Files that are no YAML, with the line that is to blame.
		"no YAML, first line": {
			yaml: "a: b: c\nd: e",
			want: []string{"config.yaml:1: not YAML: mapping values are not allowed in this context"},
		},
		"no YAML, scanner": {
			yaml: "host:\n  limit: 5\n  listen: b: c",
			want: []string{"config.yaml:3: not YAML: mapping values are not allowed in this context"},
		},
		"no YAML, parser": {
			yaml: "host:\n  limit: 5\n  listen: }",
			want: []string{"config.yaml:3: not YAML: did not find expected node content"},
		},
		"no YAML, something is left open": {
			yaml: "host: {\n",
			want: []string{"config.yaml:1: not YAML: did not find expected node content"},
		},
		"no YAML, after the document": {
			yaml: "{}\n}\n",
			want: []string{"config.yaml:2: not YAML: did not find expected <document start>"},
		},
		"no YAML, an anchor": {
			yaml: "host: {limit: *x}",
			want: []string{"config.yaml:1: not YAML: unknown anchor 'x' referenced"},
		},
		"no YAML, an anchor that may stand in two places": {
			yaml: "# not *x\nhost: {limit: *x}",
			want: []string{"config.yaml: not YAML: unknown anchor 'x' referenced"},
		},
		"no text, bytes": {
			yaml: "host:\n  limit: \xff",
			want: []string{"config.yaml:2: a control character, or not UTF-8; write plain text"},
		},
		"no text, a control character": {
			yaml: "host:\r\n\r\n  limit: \x00",
			want: []string{"config.yaml:3: a control character, or not UTF-8; write plain text"},
		},
		"no text, an old line's end": {
			yaml: "host:\r  limit: 1",
			want: []string{"config.yaml:1: a control character, or not UTF-8; write plain text"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			enter(t, tt.yaml)
			_, err := schema().Load(config.Sources{File: "config.yaml", Environ: tt.environ, Flags: flags(t, tt.args...)})
			var all *config.Error
			if !errors.As(err, &all) {
				t.Fatalf("want mistakes, got %v", err)
			}
			equal(t, strings.Split(err.Error(), "\n"), tt.want)
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	enter(t, "")
	if err := os.Mkdir("folder", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		src  config.Sources
		want string
	}{
		"a variable's file does not exist": {
			config.Sources{Environ: []string{"OCNODE_CONFIG=absent.yaml"}},
			"absent.yaml: no such file or directory; name a readable YAML file, or none",
		},
		"a flag's file does not exist": {
			config.Sources{File: "config.yaml", Flags: flags(t, "--config=absent.yaml")},
			"absent.yaml: no such file or directory; name a readable YAML file, or none",
		},
		"a directory": {
			config.Sources{File: "folder"},
			"folder: is a directory; name a readable YAML file, or none",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := schema().Load(tt.src)
			if err == nil {
				t.Fatal("was read")
			}
			equal(t, err.Error(), tt.want)
		})
	}
}

func TestFilesThatSetNothing(t *testing.T) {
	for name, yaml := range map[string]string{
		"empty":          "",
		"blank":          "\n\n  \n",
		"comments":       "# registry: {ttl: 1s}\n",
		"a document":     "---\n...\n",
		"null":           "null",
		"empty sections": "registry:\nhost: ~\nmodules: {}\nindexer: null",
		"a byte order":   "\ufeff# text\n",
	} {
		t.Run(name, func(t *testing.T) {
			enter(t, yaml)
			c := load(t, config.Sources{File: "config.yaml"})
			equal(t, c.File(), "config.yaml")
			for _, key := range schema().Keys() {
				if c.IsSet(key.Name) {
					t.Errorf("%s is set by %s", key.Name, c.Origin(key.Name))
				}
			}
		})
	}
}

func TestAnchors(t *testing.T) {
	enter(t, "registry:\n  ttl: &t 5s\n  heartbeat: *t\nhost: {listen: [&a x, *a]}\nindexer: {meta: {*a : *t}}")
	c := load(t, config.Sources{File: "config.yaml"})
	equal(t, c.Value("registry.heartbeat"), c.Value("registry.ttl"))
	equal(t, c.Value("host.listen"), []string{"x", "x"})
	equal(t, c.Value("indexer.meta"), map[string]string{"x": "5s"})
	equal(t, c.Origin("registry.heartbeat").Line, 3)
}

// FuzzLoad reads any bytes as a file. What is accepted must read the same when every
// value is given by flag, as far as a flag can express it.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "---\n", "registry: {ttl: 66s, heartbeat: 60}", "modules: {native: yes, dht: true}", "a: &a [*a]", "x: *y", "? [a]: b",
		"indexer: {natives: [a, b], meta: {a.b: c, d: 'e=f'}}", "indexer: &i {meta: *i}", "registry: &r {<<: *r}", "{a: 1}}", "%YAML 9.9\n---\n",
		"host: {limit: 0x10, limit: 1}", "http: {listen: !!binary aGk=}", "a: 1\n---\nb: 2", "\xff", "\r//", "\u2028//", "host:\n\t- x", "a: \"\\xZZ\"", "[[[[[[[[",
	} {
		f.Add([]byte(seed))
	}
	path := f.TempDir() + "/config.yaml"
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := schema()
		c, err := s.Load(config.Sources{File: path})
		var all *config.Error
		if errors.As(err, &all) {
			last, lines := 0, 1+strings.Count(string(text), "\n")
			for _, m := range all.Mistakes {
				if m.Origin.Name != path || m.Message == "" || m.Origin.Line < last || m.Origin.Line > lines {
					t.Fatalf("%+v after line %d of %d", m, last, lines)
				}
				last = m.Origin.Line
			}
			return
		}
		if err != nil {
			t.Fatalf("an error without mistakes: %v", err)
		}
		fs := pflag.NewFlagSet("ocnode", pflag.ContinueOnError)
		s.AddFlags(fs)
		for _, key := range s.Keys() {
			if text := config.Text(c.Value(key.Name)); c.IsSet(key.Name) && !(strings.ContainsAny(text, ", ") && (key.Type == "list" || key.Type == "map")) {
				if err := fs.Set(key.Name, text); err != nil {
					t.Fatal(err)
				}
			}
		}
		again, err := s.Load(config.Sources{File: path, Flags: fs})
		if err != nil {
			t.Fatalf("%v\nfrom %q", err, text)
		}
		for _, key := range s.Keys() {
			if diff := cmp.Diff(c.Value(key.Name), again.Value(key.Name)); diff != "" {
				t.Fatalf("%s (-file +flag)\n%s", key.Name, diff)
			}
		}
	})
}
