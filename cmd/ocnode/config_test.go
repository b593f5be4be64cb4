package main_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
)

// wrong is a mistake that ocnode config check must tell.
type wrong struct {
	origin, key string
	says        []string // in the message, in this order
}

func (w wrong) String() string {
	return fmt.Sprintf("%s: %s: … %s …", w.origin, w.key, strings.Join(w.says, " … "))
}

// told is one mistake of config check -o json.
type told struct {
	Origin  string
	Line    int
	Key     string
	Message string
}

// is reports whether this is the mistake.
func (m told) is(w wrong) bool {
	rest := m.Message
	for _, want := range w.says {
		_, after, found := strings.Cut(rest, want)
		if !found {
			return false
		}
		rest = after
	}
	return m.Origin == w.origin && m.Key == w.key && m.Line == lineOf(w.origin)
}

// lineOf is the 12 of config.yaml:12, and 0 of what is no file.
func lineOf(origin string) int {
	_, line, _ := strings.Cut(origin, "config.yaml:")
	n, _ := strconv.Atoi(line)
	return n
}

// expectMistakes runs config check, in words and in JSON, and holds what it tells
// against all that is wrong.
func expectMistakes(t *testing.T, dir string, environ []string, args []string, want []wrong) {
	t.Helper()
	check := func(args ...string) *ocnodetest.Process {
		p := launch(t, dir, environ, append([]string{"config", "check"}, args...)...)
		p.ExpectExit(3)
		return p
	}
	p := check(append(args, "-o", "json")...)
	var doc struct {
		File     string
		Mistakes []told
	}
	if err := json.Unmarshal([]byte(p.Out.String()), &doc); err != nil {
		t.Fatalf("%v\n%s", err, p.Out.String())
	}
	if doc.File != "config.yaml" {
		t.Errorf("the file is %q", doc.File)
	}
	expected := slices.Clone(want)
	for _, m := range doc.Mistakes {
		i := slices.IndexFunc(expected, m.is)
		if i < 0 {
			t.Errorf("nobody made this mistake: %+v", m)
			continue
		}
		expected = slices.Delete(expected, i, i+1)
	}
	for _, w := range expected {
		t.Errorf("not told: %v", w)
	}

	// In words the same: one line each, which begins with the place and the key, in the same order.
	p = check(args...)
	if out := p.Out.String(); out != "" {
		t.Errorf("standard output has %q", out)
	}
	lines := strings.Split(strings.TrimSuffix(p.Log.String(), "\n"), "\n")
	if len(lines) != len(doc.Mistakes) {
		t.Fatalf("%d lines of %d mistakes\n%s", len(lines), len(doc.Mistakes), p.Log.String())
	}
	for i, m := range doc.Mistakes {
		begin := "ocnode: " + m.Origin + ": "
		if m.Line > 0 {
			begin += m.Key + ": "
		}
		if !strings.HasPrefix(lines[i], begin) || !strings.HasSuffix(lines[i], m.Message) {
			t.Errorf("line %d is %q, want %+v", i+1, lines[i], m)
		}
	}
}

func TestEveryMistakeIsToldInOneGo(t *testing.T) {
	t.Parallel()
	const peer = "/p2p/12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"
	type is struct { // what is wrong in a line
		key  string
		says []string
	}
	says := func(key string, says ...string) is { return is{key, says} }
	var text strings.Builder
	var want []wrong
	for i, line := range []struct {
		text  string
		wrong []is
	}{
		{"# Nothing here is right.", nil},
		{"modules:", nil},
		{"  nativ: true", []is{says("modules.nativ", `unknown module "nativ"`, "did you mean native?", "native, indexer, dht, gossip")}},
		{"  dht: yes", []is{says("modules.dht", `"yes" is not a boolean`, "true or false")}},
		{"  gossip: [false]", []is{says("modules.gossip", "a list is not a boolean", "true or false")}},
		{"registry:", nil},
		{"  ttl: 66", []is{says("registry.ttl", `"66" has no unit`, "66s")}},
		{"  hartbeat: 60s", []is{says("registry.hartbeat", "unknown key", "did you mean registry.heartbeat?")}},
		{"  refresh: 25h", []is{says("registry.refresh", "25h0m0s", "between 10ms and 30m")}},
		{"host:", nil},
		{"  listen: [/ip4/0.0.0.0/tcp/99999]", []is{says("host.listen", "/ip4/0.0.0.0/tcp/99999")}},
		{"  announce: [nowhere, /ip4/192.0.2.1/tpc/1]", []is{says("host.announce", `"nowhere"`), says("host.announce", "/ip4/192.0.2.1/tpc/1")}},
		{"  bootstrap:", nil},
		{"    - /ip4/192.0.2.2/tcp/4101" + peer, nil},
		{"    - /ip4/192.0.2.1/tcp/4101", []is{says("host.bootstrap", "/ip4/192.0.2.1/tcp/4101", "append /p2p/<PeerID>")}},
		{"  lisen: [/ip4/0.0.0.0/tcp/0]", []is{says("host.lisen", "unknown key", "did you mean host.listen?")}},
		{"indexer:", nil},
		{"  natives: /ip4/192.0.2.1/tcp/4101" + peer, []is{says("indexer.natives", "is not a list", "[a, b]")}},
		{"  meta:", nil},
		{"    zone: [eu-1]", []is{says("indexer.meta.zone", "a list is not a string")}},
		{"    rack:", []is{says("indexer.meta.rack", "no value", `""`)}},
		{"    rack: r1", []is{says("indexer.meta.rack", "given twice, first in line 21", "remove one")}},
		{"dht: {prefix: opencloud, ttl: 1s}", []is{says("dht.prefix", `"opencloud"`, "/"), says("dht.ttl", "unknown key", "did you mean registry.ttl?")}},
		{"gossip:", nil},
		{"  topic: ''", []is{says("gossip.topic", "must not be empty", "oc-indexer-registry")}},
		{"  topik: x", []is{says("gossip.topik", "unknown key", "did you mean gossip.topic?")}},
		{"http:", nil},
		{"  listen: here", []is{says("http.listen", "here", "127.0.0.1:4180")}},
		{"  port: 80", []is{says("http.port", "unknown key", "the keys here are http.listen")}},
		{"log:", nil},
		{"  level: loud", []is{says("log.level", `"loud" is not a level`, "debug, info, warn")}},
		{"  format: xml", []is{says("log.format", `"xml" is not a format`, "text", "json")}},
		{"logg: {level: info}", []is{says("logg", "unknown key", "did you mean log?")}},
		{"registry.ttl: 66s", []is{says("registry.ttl", "unknown key", "write registry: {ttl: …}")}},
		{"natives: []", []is{says("natives", "unknown key", "did you mean trust.natives or indexer.natives?")}},
		{"weather: fine", []is{says("weather", "unknown key", "the sections are modules,")}},
		{"trust:", nil},
		{"  indexer: []", []is{says("trust.indexer", "unknown key", "did you mean trust.indexers?")}},
		{"  indexers: [nobody, file:absent, file:list]", []is{
			says("trust.indexers", `"nobody" is neither a PeerID`, "nor a file of them, such as file:/"),
			says("trust.indexers", "absent: no such file", "one PeerID a line"),
			says("trust.indexers", "list:2:", `"someone" is not a PeerID`, "what follows a # is a comment"),
		}},
		{"data: ", nil},
		{"data: {dir: '', dri: data}", []is{
			says("data", "given twice, first in line 40", "remove one"), says("data.dri", "unknown key", "did you mean data.dir?"),
		}},
		{"host: 5", []is{says("host", "given twice, first in line 10", "remove one"), says("host", `"5" is not a section`, "host: {listen: ")}},
	} {
		text.WriteString(line.text + "\n")
		for _, is := range line.wrong {
			want = append(want, wrong{fmt.Sprintf("config.yaml:%d", i+1), is.key, is.says})
		}
	}
	if len(want) < 20 {
		t.Fatalf("only %d mistakes are made in the file", len(want))
	}
	environ := []string{
		"OCNODE_REGISTRY__HEARTBEAT=soon", "OCNODE_HTTP__LISTN=127.0.0.1:1", "OCNODE_WEATHER__SHAPE=round",
		"OCNODE_PORT_4101_TCP=tcp://10.0.0.1:4101", "OCNODE_INDEXER__META=zone",
	}
	args := []string{"--registry.ttl=5", "--registry.heartbeat", "", "--indexer.meta=a=1,a=2", "--indexer.natives=a,,b"}
	want = append(want,
		wrong{"OCNODE_REGISTRY__HEARTBEAT", "registry.heartbeat", []string{`"soon" is not a duration`, "60s"}},
		wrong{"OCNODE_HTTP__LISTN", "http.listn", []string{"unknown key", "did you mean OCNODE_HTTP__LISTEN?"}},
		wrong{"OCNODE_WEATHER__SHAPE", "weather.shape", []string{"unknown key", "the sections are modules,"}},
		wrong{"OCNODE_INDEXER__META", "indexer.meta", []string{`"zone" is not name=value`, "name=value,name=value"}},
		wrong{"--registry.ttl", "registry.ttl", []string{`"5" has no unit`, "5s"}},
		wrong{"--registry.heartbeat", "registry.heartbeat", []string{`"" is not a duration`, "60s"}},
		wrong{"--indexer.meta", "indexer.meta", []string{`"a" is given twice`, "remove one"}},
		wrong{"--indexer.natives", "indexer.natives", []string{`"a,,b" has an empty item`, "a,b"}},
		wrong{"--indexer.natives", "indexer.natives", []string{`"a" is not a multiaddr`}},
		wrong{"--indexer.natives", "indexer.natives", []string{`"b" is not a multiaddr`}},
	)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "list"), "# Who is trusted.\nsomeone\n"+stranger+"\n")
	write(t, filepath.Join(dir, "config.yaml"), text.String())
	expectMistakes(t, dir, environ, args, want)

	// A node that would be started there says the same.
	p := launch(t, dir, environ, args...)
	p.ExpectExit(3)
	if got := strings.Count(p.Log.String(), "\n"); got != len(want) {
		t.Errorf("run tells %d mistakes of %d\n%s", got, len(want), p.Log.String())
	}
}

// Settings that are right by themselves and do not go together are told where they
// were set, though it is another key's default that they do not go with.
func TestMistakesOfSeveralKeysAreToldWhereTheyWereMade(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file    string
		environ []string
		args    []string
		want    []wrong
	}{
		"in the file": {
			file: "registry:\n  heartbeat: 70s\nmodules:\n  native: false\n  indexer: true\n  gossip: true\n",
			want: []wrong{
				{"config.yaml:2", "registry.ttl", []string{"1m6s is not longer than registry.heartbeat 1m10s", "at least 1m17s"}},
				{"config.yaml:5", "indexer.natives", []string{"names no native", "turn native on"}},
				{"config.yaml:6", "modules.gossip", []string{"turn native on too, or gossip off"}},
			},
		},
		"in the environment": {
			file: "http: {}\n", environ: []string{"OCNODE_REGISTRY__TTL=30s", "OCNODE_MODULES=indexer"},
			want: []wrong{
				{"OCNODE_REGISTRY__TTL", "registry.ttl", []string{"30s is not longer than registry.heartbeat 1m0s"}},
				{"OCNODE_REGISTRY__TTL", "registry.refresh", []string{"30s is not shorter than registry.ttl 30s"}},
				{"OCNODE_MODULES", "indexer.natives", []string{"names no native"}},
			},
		},
		"not where it is unclear what is meant": {
			file: "registry: {heartbeat: 70s}\nregistry: {ttl: 80s, refresh: 25h}\ndht:\n",
			want: []wrong{{"config.yaml:2", "registry", []string{"given twice, first in line 1"}}},
		},
		"beside items that are none, and beside a key in the wrong place": {
			file: "host: {bootstrap: [null, foo]}\nindexer: {natives: [\"\", bar]}\nlog: {level: inf}\nlog.level: info\n",
			want: []wrong{
				{"config.yaml:1", "host.bootstrap", []string{"an empty item"}},
				{"config.yaml:1", "host.bootstrap", []string{`"foo" is not a multiaddr`}},
				{"config.yaml:2", "indexer.natives", []string{"an empty item"}},
				{"config.yaml:2", "indexer.natives", []string{`"bar" is not a multiaddr`}},
				{"config.yaml:3", "log.level", []string{`"inf" is not a level`, "did you mean info?"}},
				{"config.yaml:4", "log.level", []string{"unknown key", "write log: {level: …}"}},
			},
		},
		"a key in the wrong place alone is meant to have that value": {
			file: "registry.ttl: 90s\nregistry: {heartbeat: 80s, refresh: 70s}\n",
			want: []wrong{{"config.yaml:1", "registry.ttl", []string{"write registry: {ttl: …}"}}},
		},
		"nothing follows from items that are none": {
			file: "host: {listen: [null]}\nindexer: {natives: ['']}\nmodules: {native: false, gossip: false, indexer: true}\n",
			want: []wrong{
				{"config.yaml:1", "host.listen", []string{"an empty item"}},
				{"config.yaml:2", "indexer.natives", []string{"an empty item"}},
			},
		},
		"items on lines of their own": {
			file: "host:\n  announce:\n    - /ip4/192.0.2.1/tcp/1\n    - /ip4/192.0.2.2/tcp/1\n    - foo\n    -\n    - [\n      bar]\n    - &baz baz\n    - *baz\n" +
				"indexer:\n  natives: [\n    foo,\n\n    bar]\nlog:\n  levels:\n    dht: loud\n    node: [info]\n    dth: info\n",
			want: []wrong{
				{"config.yaml:5", "host.announce", []string{`"foo" is not a multiaddr`}},
				{"config.yaml:6", "host.announce", []string{"an empty item"}},
				{"config.yaml:7", "host.announce", []string{"a list is not a string"}},
				{"config.yaml:9", "host.announce", []string{`"baz" is not a multiaddr`}},
				{"config.yaml:10", "host.announce", []string{`"baz" is not a multiaddr`}},
				{"config.yaml:13", "indexer.natives", []string{`"foo" is not a multiaddr`}},
				{"config.yaml:15", "indexer.natives", []string{`"bar" is not a multiaddr`}},
				{"config.yaml:18", "log.levels", []string{`"loud", for dht, is not a level`}},
				{"config.yaml:19", "log.levels.node", []string{"a list is not a string"}},
				{"config.yaml:20", "log.levels", []string{`"dth" is not a subsystem`, "did you mean dht?"}},
			},
		},
		"a layer over the file": {
			file:    "host:\n  announce:\n    - foo\n    -\nregistry: {ttl: 66, heartbeat: 70s}\nlog: {levels: {dht: loud}}\n",
			environ: []string{"OCNODE_HOST__ANNOUNCE=/ip4/192.0.2.1/tcp/1,bar", "OCNODE_LOG__LEVELS=dht=lout"}, args: []string{"--registry.ttl=65s"},
			want: []wrong{
				{"config.yaml:4", "host.announce", []string{"an empty item"}},
				{"config.yaml:5", "registry.ttl", []string{`"66" has no unit`}},
				{"OCNODE_HOST__ANNOUNCE", "host.announce", []string{`"bar" is not a multiaddr`}},
				{"OCNODE_LOG__LEVELS", "log.levels", []string{`"lout", for dht, is not a level`}},
				{"--registry.ttl", "registry.ttl", []string{"1m5s is not longer than registry.heartbeat 1m10s"}},
			},
		},
		"one of three times is impossible": {
			file: "registry:\n  ttl: 5s\n  heartbeat: 25h\n  refresh: 30s\n",
			want: []wrong{
				{"config.yaml:3", "registry.heartbeat", []string{"25h0m0s is not between"}},
				{"config.yaml:4", "registry.refresh", []string{"30s is not shorter than registry.ttl 5s"}},
			},
		},
		"addresses of nodes that are not trusted": {
			file: "trust:\n  natives: [" + stranger + "]\nhost:\n  bootstrap:\n    - /ip4/192.0.2.1/tcp/1/p2p/" + stranger + "\n    - /ip4/192.0.2.1/tcp/2/p2p/" + others[0] +
				"\n    - /dnsaddr/c.example\nindexer:\n  natives: [/ip4/192.0.2.1/tcp/3/p2p/" + others[0] + "]\n",
			want: []wrong{
				{"config.yaml:6", "host.bootstrap", []string{`"/ip4/192.0.2.1/tcp/2/p2p/` + others[0] + `"`, "not in trust.natives: add " + others[0] + " there"}},
				{"config.yaml:9", "indexer.natives", []string{`"/ip4/192.0.2.1/tcp/3/p2p/` + others[0] + `"`, "not in trust.natives: add " + others[0] + " there"}},
			},
		},
		"nor do they follow from a list with mistakes": {
			file: "trust: {natives: [" + stranger + ", file:]}\nindexer: {natives: [/ip4/192.0.2.1/tcp/3/p2p/" + others[0] + "]}\n",
			want: []wrong{{"config.yaml:1", "trust.natives", []string{"no such file", "name a text file"}}},
		},
		"in two places": {
			file: "registry:\n  refresh: 40s\n", args: []string{"--registry.ttl=35s", "--registry.heartbeat=20s", "--modules="},
			want: []wrong{
				{"config.yaml:2", "registry.refresh", []string{"40s is not shorter than registry.ttl 35s"}},
				{"--modules", "modules", []string{"turn one of them on"}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "config.yaml"), tt.file)
			expectMistakes(t, dir, tt.environ, tt.args, tt.want)
		})
	}
}

func TestACheckSaysWhatItRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	expect := func(want string, environ []string, args ...string) {
		t.Helper()
		p := launch(t, dir, environ, append([]string{"config", "check"}, args...)...)
		p.ExpectExit(0)
		if p.Out.String() != want+"\n" || p.Log.String() != "" {
			t.Errorf("%q prints %q and %q, want %q", args, p.Out.String(), p.Log.String(), want)
		}
	}
	expect("there is no config.yaml here, so all is at its default: no mistakes", nil)
	write(t, filepath.Join(dir, "other.yaml"), "registry: {ttl: 90s}\n")
	write(t, filepath.Join(dir, "config.yaml"), "")
	expect("config.yaml: no mistakes", nil)
	expect("other.yaml: no mistakes", nil, "other.yaml")
	expect("other.yaml: no mistakes", nil, "--config", "other.yaml")
	expect("other.yaml: no mistakes", []string{"OCNODE_CONFIG=other.yaml"})
	// With none, though there is one.
	expect("no file was read, as an empty --config asks, so all is at its default: no mistakes", nil, "--config=")
	expect("no file was read, as an empty FILE asks, so all is at its default: no mistakes", nil, "")
	expect("no file was read, as an empty OCNODE_CONFIG asks, so all is at its default: no mistakes", []string{"OCNODE_CONFIG="})
	expect("--registry.ttl: no mistakes", nil, "--config=", "--registry.ttl=90s")
	// The variable is read, too, though the flag goes over it.
	expect("config.yaml, OCNODE_REGISTRY__TTL, --registry.ttl: no mistakes",
		[]string{"OCNODE_REGISTRY__TTL=80s"}, "--registry.ttl=90s")

	type report struct {
		File     string
		Above    []string
		Mistakes []told
	}
	if got := printed[report](t, dir, "config", "check", "--log.level=warn"); got.File != "config.yaml" ||
		!slices.Equal(got.Above, []string{"--log.level"}) || got.Mistakes == nil || len(got.Mistakes) > 0 {
		t.Errorf("in JSON it prints %+v", got)
	}
}

func TestWhatCannotBeReadIsToldByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "big.yaml"), strings.Repeat("#", 2_000_000))
	write(t, filepath.Join(dir, "broken.yaml"), "http:\n  listen: [\n")
	for file, want := range map[string][]string{
		"absent.yaml": {"absent.yaml: no such file", "name a readable YAML file"},
		"folder":      {"folder: is a directory", "name a readable YAML file"},
		"big.yaml":    {"big.yaml: larger than 1048576 bytes"},
		"broken.yaml": {"broken.yaml:2: not YAML"},
	} {
		// What is given beside it is checked all the same.
		_, log := run(t, dir, 3, "config", "check", file, "--registry.ttl=5")
		expectMessage(t, log, append(want, `--registry.ttl: "5" has no unit`)...)
	}
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, dir, nil, "config", "check", "pipe.yaml")
	write(t, pipe, "registry: {tll: 66s}\n") // blocks until it reads
	p.ExpectExit(3)
	expectMessage(t, p.Log.String(), "pipe.yaml:1: registry.tll: unknown key; did you mean registry.ttl?")

	for _, args := range []string{"config check a.yaml b.yaml", "config check a.yaml --config b.yaml", "config chek", "config show x", "config show -o yaml"} {
		run(t, dir, 2, strings.Fields(args)...)
	}
	_, log := run(t, dir, 2, "config", "chek")
	expectMessage(t, log, `"chek" of ocnode config`, "did you mean ocnode config check?")
}

func TestConfigInitWritesWhatANodeTakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	printed, _ := run(t, dir, 0, "config", "init", "-")
	if _, err := os.Stat(path); err == nil {
		t.Error("what is only to be printed was written")
	}
	out, log := run(t, dir, 0, "config", "init")
	if out != "wrote config.yaml\nnext: ocnode run\n" || log != "" {
		t.Errorf("it prints %q and %q", out, log)
	}
	expectFile(t, path, printed)
	ours, err := os.ReadFile("../../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	expectFile(t, path, string(ours))
	run(t, dir, 0, "config", "check")

	// What is there stays as it is, whatever it is.
	write(t, path, "mine: {}\n")
	_, log = run(t, dir, 1, "config", "init", "--role", "indexer")
	expectMessage(t, log, "config.yaml is there already", "name another file, or -")
	expectFile(t, path, "mine: {}\n")
	if err := os.Symlink("nowhere", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	_, log = run(t, dir, 1, "config", "init", "link.yaml")
	expectMessage(t, log, "link.yaml is there already")

	_, log = run(t, dir, 1, "config", "init", "missing/config.yaml")
	expectMessage(t, log, "missing/config.yaml cannot be written", "mkdir -p missing")
	_, log = run(t, dir, 1, "config", "init", "link.yaml/config.yaml")
	expectMessage(t, log, "link.yaml/config.yaml cannot be written")
	_, log = run(t, dir, 2, "config", "init", "--role", "nativ", "new.yaml")
	expectMessage(t, log, `no role "nativ"`, "did you mean native?", "native, indexer")
	run(t, dir, 2, "config", "init", "--role=", "new.yaml")
	run(t, dir, 2, "config", "init", "--role", "native", "--modules", "indexer", "new.yaml")
	run(t, dir, 2, "config", "init", "-o", "json", "-")
	_, log = run(t, dir, 3, "config", "init", "--registry.ttl", "10s", "new.yaml")
	expectMessage(t, log, "--registry.ttl: 10s is not longer than registry.heartbeat")
	expectFolder(t, dir, "config.yaml", "link.yaml")

	// The file has its name from where a node would look for it.
	for want, args := range map[string][]string{"a.yaml": {"a.yaml"}, "b.yaml": {"--config", "b.yaml"}} {
		run(t, dir, 0, append([]string{"config", "init"}, args...)...)
		expectFile(t, filepath.Join(dir, want), printed)
	}
	launch(t, dir, []string{"OCNODE_CONFIG=c.yaml"}, "config", "init").ExpectExit(0)
	expectFile(t, filepath.Join(dir, "c.yaml"), printed)
	expectFolder(t, dir, "a.yaml", "b.yaml", "c.yaml", "config.yaml", "link.yaml")
}

func TestConfigInitForAnIndexer(t *testing.T) {
	t.Parallel()
	native := start(t, t.TempDir())
	dir := t.TempDir()
	out, _ := run(t, dir, 0, "config", "init", "--role", "indexer")
	if out != "wrote config.yaml\nnext: fill in indexer.natives, then ocnode config check\n" {
		t.Errorf("it prints %q", out)
	}
	_, log := run(t, dir, 3, "config", "check")
	if expectMessage(t, log, "config.yaml:", "indexer.natives: names no native", "ocnode status"); strings.Count(log, "\n") != 1 {
		t.Errorf("more is wrong than what is to be filled in:\n%s", log)
	}
	type report struct {
		File, Role string
		FillIn     []string
	}
	if got := printed[report](t, dir, "config", "init", "--role=indexer", "other.yaml"); got.File != "other.yaml" || got.Role != "indexer" || !slices.Equal(got.FillIn, []string{"indexer.natives"}) {
		t.Errorf("in JSON it prints %+v", got)
	}

	if got := printed[report](t, dir, "config", "init", "--modules=indexer", "third.yaml"); got.Role != "indexer" {
		t.Errorf("in JSON it prints %+v", got)
	}
	if got := printed[report](t, dir, "config", "init", "--modules.indexer", "fourth.yaml"); got.Role != "" {
		t.Errorf("in JSON it prints %+v", got)
	}

	out, _ = run(t, dir, 0, "config", "init", "full.yaml", "--role", "indexer", "--indexer.natives", native.Addrs[0], "--indexer.meta", "zone=eu 1")
	if out != "wrote full.yaml\nnext: ocnode run --config full.yaml\n" {
		t.Errorf("it prints %q", out)
	}
	run(t, dir, 0, "config", "check", "full.yaml")
	n := start(t, dir, "run", "--config", "full.yaml")
	if x := native.lists(n.PeerID); x.Meta["zone"] != "eu 1" {
		t.Errorf("the native lists it as %+v", x)
	}
}

func expectFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: %v\n%s", path, err, diff.Diff(want, string(got)))
	}
}

// expectFolder fails the test if there is anything but these: a half-written file.
func expectFolder(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the folder has %v, want %v", names, want)
	}
}

// others are more PeerIDs of nobody; the second is spelt as a CID.
var others = [2]string{
	"12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
	"bafzaajaiaejcbajzo4hkq7ixl5lkgvdgyngh5tglrwfjdnhog6rf35qploh4tm4u",
}

// samples are three values each for the keys that do not take any value of their type.
var samples = map[string][3]string{
	"host.listen":          {"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2,/ip6/::1/tcp/2", "/ip4/127.0.0.1/tcp/3"},
	"host.announce":        {"/ip4/192.0.2.1/tcp/1", "/dns4/b.example/tcp/2,/dns4/c.example/tcp/3", "/ip4/192.0.2.3/tcp/1"},
	"host.bootstrap":       {"/ip4/192.0.2.1/tcp/1/p2p/" + stranger, "/ip4/192.0.2.2/tcp/1/p2p/" + stranger, "/dnsaddr/c.example"},
	"indexer.natives":      {"/ip4/192.0.2.1/tcp/1/p2p/" + stranger, "/ip4/192.0.2.2/tcp/1/p2p/" + stranger, "/ip4/192.0.2.3/tcp/1/p2p/" + stranger},
	"dht.prefix":           {"/a", "/b", "/c"},
	"trust.indexers":       {others[0], others[0] + "," + others[1], others[1]},
	"trust.natives":        {stranger, stranger + "," + others[0], stranger + "," + others[1]},
	"trust.plain":          {"refuse", "accept", "refuse"},
	"trust.addresses":      {"lan", "internet", "any"},
	"http.listen":          {"127.0.0.1:1", "", "127.0.0.1:3"},
	"http.hosts":           {"a.example", "b.example,192.0.2.2", "c.example"},
	"limits.connections":   {"100", "0", "300"},
	"limits.stream-memory": {"100", "0", "300"},
	"log.level":            {"debug", "warn", "error"},
	"log.levels":           {"dht=debug", "dht=warn", "dht=error"},
	"log.format":           {"json", "text", "json"},
}

// secrets are what is in the files that keys name.
var secrets = map[string]string{"host.psk": modules.NewPSK(), "http.token": "0123456789abcdef\n"}

// sampled returns three values for a key, as a flag takes them, of which no one is that
// of the layer below. The first is never the default.
func sampled(t *testing.T, key config.Key) (texts [3]string) {
	t.Helper()
	texts, ok := samples[key.Name]
	if content, isFile := secrets[key.Name]; isFile {
		ok = true
		for i := range texts {
			texts[i] = filepath.Join(t.TempDir(), "secret")
			write(t, texts[i], content)
		}
	}
	for i := range texts {
		switch d := key.Default.(type) {
		case bool:
			texts[i] = strconv.FormatBool(d == (i == 1))
		case time.Duration:
			texts[i] = config.Text(d + time.Duration(i+1)*time.Second)
		case int:
			if !ok {
				texts[i] = strconv.Itoa(d + i + 1)
			}
		default:
			if !ok {
				texts[i] = map[string]string{"string": "text ", "list": "first,second ", "map": "zone=eu,rack=r "}[key.Type] + strconv.Itoa(i)
			}
		}
	}
	if texts[0] == config.Text(key.Default) || texts[0] == texts[1] || texts[1] == texts[2] {
		t.Fatalf("%s has the samples %q and the default %q", key.Name, texts, config.Text(key.Default))
	}
	return texts
}

// inYAML writes a value as people write it in a file: a list with dashes, text in quotes.
func inYAML(t *testing.T, key config.Key, text string) string {
	t.Helper()
	var lines []string
	section, name, _ := strings.Cut(key.Name, ".")
	switch key.Type {
	case "list":
		for item := range strings.SplitSeq(text, ",") {
			lines = append(lines, fmt.Sprintf("    - %q", item))
		}
	case "map":
		for item := range strings.SplitSeq(text, ",") {
			name, value, _ := strings.Cut(item, "=")
			lines = append(lines, fmt.Sprintf("    %s: %q", name, value))
		}
	case "string":
		text = strconv.Quote(text)
		fallthrough
	default:
		return fmt.Sprintf("%s:\n  %s: %s\n", section, name, text)
	}
	return fmt.Sprintf("%s:\n  %s:\n%s\n", section, name, strings.Join(lines, "\n"))
}

// TestEveryKeyIsSetByFileVariableAndFlag sets each key there is in every layer alone
// and in all of them, so that a key that cannot be set somewhere does not get by.
func TestEveryKeyIsSetByFileVariableAndFlag(t *testing.T) {
	t.Parallel()
	schema := modules.Schema(modules.Builtin())
	for _, key := range schema.Keys() {
		t.Run(key.Name, func(t *testing.T) {
			texts := sampled(t, key)
			path := filepath.Join(t.TempDir(), "config.yaml")
			write(t, path, "# first\n"+inYAML(t, key, texts[0]))
			environ := []string{key.Env() + "=" + texts[1]}
			file := config.Sources{File: path}
			env := config.Sources{Environ: environ}
			flag := config.Sources{Flags: parsed(t, schema, key.Name, texts[2])}
			for _, tt := range []struct {
				name, value, origin string
				src                 config.Sources
			}{
				{"nothing", config.Text(key.Default), "default", config.Sources{}},
				{"the file", texts[0], path + ":3", file},
				{"the variable", texts[1], key.Env(), env},
				{"the flag", texts[2], "--" + key.Name, flag},
				{"the variable over the file", texts[1], key.Env(), config.Sources{File: path, Environ: environ}},
				{"the flag over the file", texts[2], "--" + key.Name, config.Sources{File: path, Flags: flag.Flags}},
				{"the flag over the variable", texts[2], "--" + key.Name, config.Sources{Environ: environ, Flags: flag.Flags}},
				{"all", texts[2], "--" + key.Name, config.Sources{File: path, Environ: environ, Flags: flag.Flags}},
			} {
				cfg, err := schema.Load(tt.src)
				if err != nil {
					t.Errorf("%s: %v", tt.name, err)
					continue
				}
				if got := canonical(key, cfg.Value(key.Name)); got != canonicalText(key, tt.value) {
					t.Errorf("%s: it is %q, want %q", tt.name, got, tt.value)
				}
				if got := cfg.Origin(key.Name).String(); got != tt.origin {
					t.Errorf("%s: it is of %s, want %s", tt.name, got, tt.origin)
				}
				if _, err := modules.NewPlan(modules.Builtin(), cfg); err != nil {
					var all *config.Error
					if errors.As(err, &all) && slices.ContainsFunc(all.Mistakes, func(m config.Mistake) bool { return m.Key == key.Name }) {
						t.Errorf("%s: the sample is no value of the key; give it better ones: %v", tt.name, err)
					}
				}
			}
		})
	}
}

// canonical writes a value the same way wherever it comes from.
func canonical(key config.Key, value any) string {
	if key.Type == "map" && value == nil {
		return ""
	}
	return config.Text(value)
}

// canonicalText is canonical of what a flag takes.
func canonicalText(key config.Key, text string) string {
	if key.Type != "map" || text == "" {
		return text
	}
	pairs := map[string]string{}
	for item := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(item, "=")
		pairs[name] = value
	}
	return config.Text(pairs)
}

func parsed(t *testing.T, schema *config.Schema, name, value string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("ocnode", pflag.ContinueOnError)
	schema.AddFlags(fs)
	if err := fs.Parse([]string{"--" + name + "=" + value}); err != nil {
		t.Fatal(err)
	}
	return fs
}

// setting is a key in config show --origin -o json.
type setting struct {
	Value  any
	Origin string
}

// TestShowHasEveryKeyAndWhereItIsFrom does the same with the binary, for all keys at once.
func TestShowHasEveryKeyAndWhereItIsFrom(t *testing.T) {
	t.Parallel()
	keys := modules.Schema(modules.Builtin()).Keys()
	dir := t.TempDir()
	sections, order := map[string]string{}, []string{}
	var environ, args []string
	texts := map[string][3]string{}
	for _, key := range keys {
		texts[key.Name] = sampled(t, key)
		section, _, _ := strings.Cut(key.Name, ".")
		if _, there := sections[section]; !there {
			sections[section], order = section+":\n", append(order, section)
		}
		sections[section] += strings.TrimPrefix(inYAML(t, key, texts[key.Name][0]), section+":\n")
		environ = append(environ, key.Env()+"="+texts[key.Name][1])
		args = append(args, "--"+key.Name+"="+texts[key.Name][2])
	}
	file := ""
	for _, section := range order {
		file += sections[section]
	}
	lines := map[string]int{} // of the keys, in the file
	section := ""
	for i, line := range strings.Split(file, "\n") {
		name, _, _ := strings.Cut(line, ":")
		switch indent := len(line) - len(strings.TrimLeft(line, " ")); indent {
		case 0:
			section = name
		case 2:
			lines[section+"."+strings.TrimSpace(name)] = i + 1
		}
	}
	write(t, filepath.Join(dir, "config.yaml"), file)
	write(t, filepath.Join(dir, "empty.yaml"), "")

	show := func(environ []string, args ...string) map[string]setting {
		t.Helper()
		p := launch(t, dir, environ, append([]string{"config", "show", "--origin", "-o", "json"}, args...)...)
		p.ExpectExit(0)
		var doc map[string]map[string]setting
		if err := json.Unmarshal([]byte(p.Out.String()), &doc); err != nil {
			t.Fatalf("%v\n%s", err, p.Out.String())
		}
		all := map[string]setting{}
		for section, values := range doc {
			for name, s := range values {
				all[section+"."+name] = s
			}
		}
		return all
	}
	for name, tt := range map[string]struct {
		got    map[string]setting
		value  func(config.Key) string
		origin func(config.Key) string
	}{
		"nothing": {
			show(nil, "--config=empty.yaml"),
			func(k config.Key) string { return config.Text(k.Default) },
			func(config.Key) string { return "default" },
		},
		"the file": {
			show(nil),
			func(k config.Key) string { return texts[k.Name][0] },
			func(k config.Key) string { return fmt.Sprint("config.yaml:", lines[k.Name]) },
		},
		"variables over the file": {
			show(environ),
			func(k config.Key) string { return texts[k.Name][1] },
			config.Key.Env,
		},
		"flags over both": {
			show(environ, args...),
			func(k config.Key) string { return texts[k.Name][2] },
			func(k config.Key) string { return "--" + k.Name },
		},
	} {
		if len(tt.got) != len(keys) {
			t.Errorf("%s: %d keys are shown of %d", name, len(tt.got), len(keys))
		}
		for _, key := range keys {
			s := tt.got[key.Name]
			if got, want := flagText(s.Value), canonicalText(key, tt.value(key)); got != want || s.Origin != tt.origin(key) {
				t.Errorf("%s: %s is %q of %s, want %q of %s", name, key.Name, got, s.Origin, want, tt.origin(key))
			}
		}
	}
}

// flagText writes a value of a JSON document as a flag takes it.
func flagText(value any) string {
	switch v := value.(type) {
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		items := make([]string, len(v))
		for i := range v {
			items[i] = fmt.Sprint(v[i])
		}
		return config.Text(items)
	case map[string]any:
		pairs := map[string]string{}
		for name := range v {
			pairs[name] = fmt.Sprint(v[name])
		}
		return config.Text(pairs)
	}
	return fmt.Sprint(value)
}

// What show prints is a configuration file for the same node.
func TestWhatIsShownCanBeReadBack(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"a native": {"--registry.ttl=90s", "--indexer.meta=a=[x],b=y: #z,c= "},
		"an indexer": {
			"--modules=indexer", "--indexer.natives=/ip4/192.0.2.1/tcp/1/p2p/" + stranger, "--gossip.topic=- a", "--http.listen=", "--data.dir=true",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, options := range [][]string{nil, {"--origin"}} {
				shown, _ := run(t, dir, 0, slices.Concat([]string{"config", "show"}, options, args)...)
				path := filepath.Join(dir, "shown.yaml")
				write(t, path, shown)
				again, _ := run(t, dir, 0, "config", "show", "--config", "shown.yaml")
				plain, _ := run(t, dir, 0, append([]string{"config", "show"}, args...)...)
				if d := diff.Diff(plain, again); d != "" {
					t.Errorf("(-shown +shown of that)\n%s", d)
				}
				run(t, dir, 0, "config", "check", "shown.yaml")
			}
			document, _ := run(t, dir, 0, append([]string{"config", "show", "-o", "json"}, args...)...)
			write(t, filepath.Join(dir, "shown.json"), document)
			if again, _ := run(t, dir, 0, "config", "show", "-o", "json", "--config", "shown.json"); again != document {
				t.Errorf("(-shown +shown of that)\n%s", diff.Diff(document, again))
			}
		})
	}
}

func TestShowTellsDefaultsAsTheyWillBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"config", "show", "--origin", "--modules=dht"}
	got := printed[map[string]map[string]setting](t, dir, args...)
	if s := got["http"]["listen"]; s != (setting{"127.0.0.1:0", "default without native"}) {
		t.Errorf("http.listen is %+v", s)
	}
	if s := got["host"]["listen"]; s.Origin != "default without native" || !strings.HasPrefix(flagText(s.Value), "/ip4/0.0.0.0/tcp/0,") {
		t.Errorf("host.listen is %+v", s)
	}
	text, _ := run(t, dir, 0, args...)
	if want := "  #listen: 127.0.0.1:0 "; !strings.Contains(text, want) || !strings.Contains(text, "  # default without native\n") {
		t.Errorf("there is no %q in\n%s", want, text)
	}
}

// Whatever is wrong, the rest is shown.
func TestShowWithMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.yaml"), "registry:\n  ttl: soon\n  refresh: 45s\nlog: {level: loud}\n")
	for _, format := range []string{"table", "json"} {
		out, log := run(t, dir, 3, "config", "show", "--origin", "-o", format)
		expectMessage(t, log, `config.yaml:2: registry.ttl: "soon" is not a duration`, "config.yaml:4: log.level: ")
		if format == "table" {
			for _, want := range [][2]string{{"ttl: 66s", "# default"}, {"refresh: 45s", "# config.yaml:3"}, {"level: loud", "# config.yaml:4"}} {
				if _, rest, found := strings.Cut(out, "  "+want[0]+" "); !found || !strings.HasPrefix(strings.TrimLeft(rest, " "), want[1]+"\n") {
					t.Errorf("there is no %q in\n%s", want, out)
				}
			}
			continue
		}
		var doc map[string]map[string]setting
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatal(err)
		}
		if s := cmp.Or(doc["registry"]["refresh"], setting{}); s != (setting{"45s", "config.yaml:3"}) {
			t.Errorf("registry.refresh is %+v", s)
		}
	}
}
