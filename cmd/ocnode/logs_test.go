package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// noisy is an environment in which the libraries would write much, in formats of their
// own.
var noisy = []string{
	"GOLOG_LOG_LEVEL=debug", "GOLOG_LOG_FMT=color", "GOLOG_LOG_LABELS=a=b", "GOLOG_OUTPUT=stderr+stdout", "GOLOG_CAPTURE_DEFAULT_SLOG=true",
}

// textLine is a line as slog's text handler writes it: key=value throughout.
var textLine = regexp.MustCompile(`^time=\S+ level=(DEBUG|INFO|WARN|ERROR) msg=("(\\.|[^"\\])*"|[^" ]+) logger=\S+( [^ ="]+=("(\\.|[^"\\])*"|[^" ]*))*\n$`)

// Two natives and an indexer at debug, from their start to their end, with one that is
// killed, so that all that libraries complain of is there.
func TestEveryLineOfANodesLogHasOneFormat(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			run := func(args ...string) *ocnodetest.Process {
				args = append(args, "--log.level", "debug", "--log.format", format)
				return launch(t, t.TempDir(), append(slices.Clone(freePorts), noisy...), args...)
			}
			addrOf := func(p *ocnodetest.Process) (addr string) {
				re := regexp.MustCompile(`/ip4/127.0.0.1/tcp/[0-9]+/p2p/[0-9A-Za-z]+`)
				p.Await("it is ready", func() bool {
					for line := range strings.Lines(p.Log.String()) {
						if (strings.Contains(line, "msg=ready ") || strings.Contains(line, `"msg":"ready"`)) && strings.HasSuffix(line, "\n") {
							addr = re.FindString(line)
						}
					}
					return addr != ""
				})
				return addr
			}
			logs := func(p *ocnodetest.Process, msg string, times int) {
				t.Helper()
				p.Await(fmt.Sprintf("it logs %q %d times", msg, times), func() bool {
					return strings.Count(p.Log.String(), `msg="`+msg)+strings.Count(p.Log.String(), `"msg":"`+msg) >= times
				})
			}
			first := run()
			second := run("--host.bootstrap", addrOf(first))
			x := run("--modules", "indexer", "--indexer.natives", addrOf(first)+","+addrOf(second))
			addrOf(x)
			logs(x, "lease granted", 2)
			logs(second, "indexer joined", 1)
			for _, p := range []*ocnodetest.Process{first, second} {
				p.Await("each part of a native is heard", func() bool {
					log := p.Log.String()
					return !slices.ContainsFunc([]string{"kad-dht", "pubsub", "registry"}, func(name string) bool {
						return !strings.Contains(log, " logger="+name+" ") && !strings.Contains(log, `"logger":"`+name+`"`)
					})
				})
			}
			first.Kill()
			logs(x, "lease lost", 1)
			logs(second, "native cannot be reached", 1)
			for _, p := range []*ocnodetest.Process{x, second} {
				p.Signal(syscall.SIGTERM)
				p.ExpectExit(0)
			}
			for _, p := range []*ocnodetest.Process{first, second, x} {
				if out := p.Out.String(); out != "" {
					t.Errorf("standard output has %q", out)
				}
				loggers := map[string]int{}
				for line := range strings.Lines(p.Log.String()) {
					if !strings.HasSuffix(line, "\n") && p == first {
						continue // it was killed as it wrote this
					}
					loggers[loggerOf(t, format, line)]++
				}
				for _, name := range []string{"node", "fx", "libp2p"} {
					if loggers[name] == 0 {
						t.Errorf("nothing is heard of %s: %v", name, loggers)
					}
				}
				if p != x && (loggers["kad-dht"] == 0 || loggers["pubsub"] == 0 || loggers["registry"] == 0) {
					t.Errorf("of a native is heard %v", loggers)
				}
			}
		})
	}
}

// loggerOf returns which subsystem a line is from, and fails the test if it has not
// the format.
func loggerOf(t *testing.T, format, text string) string {
	t.Helper()
	if format == "text" {
		if !textLine.MatchString(text) {
			t.Errorf("is not slog's text: %q", text)
		}
		_, name, _ := strings.Cut(text, " logger=")
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		return name
	}
	var l struct{ Time, Level, Msg, Logger string }
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Errorf("%v: %q", err, text)
	} else if l.Time == "" || l.Level == "" || l.Msg == "" || l.Logger == "" {
		t.Errorf("lacks time, level, message or logger: %s", text)
	}
	keys := keysOf(t, text)
	for i, key := range keys {
		if slices.Contains(keys[:i], key) {
			t.Errorf("has %s twice: %s", key, text)
		}
	}
	return l.Logger
}

// keysOf returns the keys of a JSON object, as often as they stand there.
func keysOf(t *testing.T, text string) (keys []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	if _, err := d.Token(); err != nil {
		t.Error(err)
	}
	for d.More() {
		key, err := d.Token()
		var value json.RawMessage
		if err := errors.Join(err, d.Decode(&value)); err != nil {
			t.Error(err)
			return keys
		}
		keys = append(keys, fmt.Sprint(key))
	}
	return keys
}

func TestLevelsOfSubsystemsAreRereadAtSIGHUP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	write(t, file, "log: {levels: {fx: error}}\n")
	n := start(t, dir)
	heard := func(logger string) bool {
		return strings.Contains(n.Log.String(), `"logger":"`+logger+`"`)
	}
	if heard("libp2p") || heard("fx") {
		t.Error("at info libraries are heard")
	}
	write(t, file, "log: {level: warn, levels: {node: info, libp2p: debug, kad-dht: debug}}\n")
	n.Signal(syscall.SIGHUP)
	if told := n.Logs("configuration reread"); told.Level != "INFO" {
		t.Errorf("got %+v", told)
	}
	other := start(t, t.TempDir(), "--host.bootstrap", n.Addrs[0])
	n.Await("libp2p and kad-dht are heard", func() bool { return heard("libp2p") && heard("kad-dht") })
	other.Kill()

	before := n.Log.String()
	if err := os.WriteFile(file, []byte("log: {levels: {lib2p: debug}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Signal(syscall.SIGHUP)
	if told := n.Logs("the configuration has mistakes and was not taken over; mend them and send SIGHUP again"); !strings.Contains(told.Error, "did you mean libp2p?") {
		t.Errorf("got %+v", told)
	}
	if strings.Contains(before, `"level":"INFO","msg":"indexer`) {
		t.Error("the registry is heard below warn")
	}
}
