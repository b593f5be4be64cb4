package modules_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports/porttest"
	"go.opentelemetry.io/otel"
	"go.uber.org/fx"
)

// written is a node's log.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// lines returns those that hold all of parts.
func (w *written) lines(parts ...string) []string {
	var found []string
line:
	for line := range strings.Lines(w.String()) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue line
			}
		}
		found = append(found, line)
	}
	return found
}

// loggingNode returns a node that was never started, its log, and what a module of
// somebody else is given to log with.
func loggingNode(t *testing.T, settings map[string]string) (*modules.Node, *written, *slog.Logger) {
	t.Helper()
	var out written
	var logger *slog.Logger
	plan, err := planOf(t, loggingSettings(t, settings), guest(&logger))
	if err != nil {
		t.Fatal(err)
	}
	node, err := modules.New(plan, modules.Environment{Log: &out, Process: true, StopTimeout: porttest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	return node, &out, logger
}

func loggingSettings(t *testing.T, settings map[string]string) map[string]string {
	all := leastSettings(t)
	maps.Copy(all, settings)
	return all
}

// guest is a module that is not ocnode's own.
func guest(logger **slog.Logger) modules.Module {
	return modules.Module{Name: "guest", On: true, Wire: func(*modules.Plan) fx.Option {
		return fx.Invoke(func(log *slog.Logger) { *logger = log.With("logger", "guest") })
	}}
}

var slogLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// from returns the lowest level that a subsystem is heard with.
func from(t *testing.T, out *written, log *slog.Logger, subsystem string) string {
	t.Helper()
	var heard []string
	for _, name := range []string{"debug", "info", "warn", "error"} {
		msg := fmt.Sprintf("%s-%s-%d", subsystem, name, len(out.String()))
		log.With("logger", subsystem).Log(t.Context(), slogLevels[name], msg)
		if len(out.lines("msg="+msg+" ", "logger="+subsystem+"\n")) == 1 {
			heard = append(heard, name)
		}
	}
	if len(heard) == 0 {
		return "nothing"
	}
	if len(heard) != 4-slices.Index([]string{"debug", "info", "warn", "error"}, heard[0]) {
		t.Errorf("%s is heard with %v", subsystem, heard)
	}
	return heard[0]
}

func TestEachSubsystemIsHeardFromItsLevelOn(t *testing.T) {
	for _, c := range []struct {
		level, levels string
		want          map[string]string
	}{
		{"info", "", map[string]string{"node": "info", "dht": "info", "guest": "info", "unheard-of": "info", "other": "info",
			"libp2p": "error", "kad-dht": "error", "pubsub": "error"}},
		{"debug", "", map[string]string{"node": "debug", "guest": "debug", "libp2p": "debug", "kad-dht": "debug", "pubsub": "debug"}},
		{"error", "", map[string]string{"node": "error", "guest": "error", "libp2p": "error"}},
		{"warn", "dht=debug,libp2p=info,guest=error", map[string]string{"node": "warn", "dht": "debug", "libp2p": "info",
			"guest": "error", "kad-dht": "error"}},
		{"debug", "libp2p=error", map[string]string{"node": "debug", "kad-dht": "debug", "libp2p": "error"}},
	} {
		t.Run(c.level+","+c.levels, func(t *testing.T) {
			node, out, log := loggingNode(t, map[string]string{"log.level": c.level, "log.levels": c.levels})
			defer stop(t, node)
			for subsystem, want := range c.want {
				if got := from(t, out, log, subsystem); got != want {
					t.Errorf("%s is heard from %s on, want %s", subsystem, got, want)
				}
			}
		})
	}
}

func TestLevelsChangeWhileTheNodeRuns(t *testing.T) {
	settings := loggingSettings(t, nil)
	node, out, log := loggingNode(t, settings)
	defer stop(t, node)
	dht := golog.Logger("dht/reloaded")
	dht.Debug("too early")
	reload := func(level, levels string) {
		settings["log.level"], settings["log.levels"] = level, levels
		plan, err := planOf(t, settings, guest(new(*slog.Logger)))
		if err != nil {
			t.Fatal(err)
		}
		node.Reload(plan)
	}
	reload("info", "dht=debug,kad-dht=debug")
	dht.Debug("in time")
	if got := from(t, out, log, "dht") + from(t, out, log, "node"); got != "debuginfo" {
		t.Errorf("dht and node are heard from %s on", got)
	}
	reload("warn", "")
	dht.Debug("too late")
	if got := from(t, out, log, "dht") + from(t, out, log, "libp2p"); got != "warnerror" {
		t.Errorf("dht and libp2p are heard from %s on", got)
	}
	if len(out.lines("too ")) != 0 || len(out.lines("level=DEBUG", `msg="in time" logger=kad-dht component=dht/reloaded`)) != 1 {
		t.Errorf("of kad-dht is heard %q", out.lines("kad-dht"))
	}
}

func TestWhatLibrariesLogIsInTheNodesLog(t *testing.T) {
	before := log.Writer()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			node, out, _ := loggingNode(t, map[string]string{"log.format": format})
			swarm := gologshim.Logger("swarm-" + format)
			dht := golog.Logger("dht/" + format)
			swarm.With("a", 1).WithGroup("g").Error("it broke", "b", 2)
			swarm.Warn("unheard at info")
			dht.Errorw("it broke too", "time", "x", "error", errors.New("no route"))
			dht.Warn("unheard at info")
			log.Print("failed to sufficiently increase receive buffer size. See https://github.com/quic-go/quic-go/wiki/UDP-Buffer-Sizes for details.\n")
			log.Print("something else")
			slog.Info("of the default logger")
			otel.Handle(errors.New("of OpenTelemetry"))
			stop(t, node)
			swarm.Error("after the end")
			dht.Error("after the end")

			var got []string
			for line := range strings.Lines(out.String()) {
				if format == "json" {
					if !json.Valid([]byte(line)) {
						t.Errorf("is not JSON: %s", line)
					}
					continue
				}
				_, line, _ = strings.Cut(line, " ")
				got = append(got, strings.TrimSpace(line))
			}
			if format == "json" {
				if n := strings.Count(out.String(), "\n"); n != 7 {
					t.Errorf("%d lines, want 7:\n%s", n, out)
				}
				return
			}
			want := []string{
				`level=ERROR msg="it broke" logger=libp2p component=swarm-text a=1 g.b=2`,
				`level=ERROR msg="it broke too" logger=kad-dht component=dht/text lib.time=x error="no route"`,
				`level=INFO msg="failed to sufficiently increase receive buffer size. See https://github.com/quic-go/quic-go/wiki/UDP-Buffer-Sizes for details." logger=other component=quic-go`,
				`level=WARN msg="something else" logger=other component=log`,
				`level=INFO msg="of the default logger" logger=other component=slog`,
				`level=WARN msg="of OpenTelemetry" logger=other component=log`,
				`level=INFO msg=stopping logger=node`,
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	if log.Writer() != before {
		t.Error("the standard library's log is not given back")
	}
}

func TestALibraryThatRepeatsItselfIsHeardNowAndThen(t *testing.T) {
	node, out, _ := loggingNode(t, nil)
	swarm := gologshim.Logger("repeating")
	for range 100 {
		swarm.Error("again")
	}
	stop(t, node)
	if n := len(out.lines("again")); n != 3 {
		t.Errorf("heard %d times", n)
	}
	node, out, _ = loggingNode(t, map[string]string{"log.levels": "libp2p=debug"})
	for range 100 {
		swarm.Error("again")
	}
	stop(t, node)
	if n := len(out.lines("again")); n != 100 {
		t.Errorf("at debug heard %d times", n)
	}
}

func TestOfSeveralNodesInAProcessTheLibrariesSayNothing(t *testing.T) {
	var out written
	settings := leastSettings(t)
	settings["log.level"] = "debug"
	node := newNode(t, settings, modules.Environment{Log: &out})
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop(t, node)
	for _, family := range []string{"libp2p", "kad-dht", "other"} {
		if found := out.lines("logger=" + family); len(found) != 0 {
			t.Errorf("got %q", found)
		}
	}
	if len(out.lines("msg=ready", "logger=node")) != 1 {
		t.Error("the node itself says nothing")
	}
}

func TestWrongLevelsAreMistakes(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       []string
	}{
		{"log.level", "wran", []string{"\"wran\" is not a level, did you mean warn?", "debug, info, warn and error"}},
		{"log.level", "loud", []string{"\"loud\" is not a level; allowed are debug, info, warn and error"}},
		{"log.levels", "dth=debug", []string{`"dth" is not a subsystem, did you mean dht?`, "allowed are node, host,", "kad-dht, pubsub, other and guest"}},
		{"log.levels", "dht=debg", []string{`"debg", for dht, is not a level, did you mean debug?`, "debug, info, warn and error"}},
		{"log.levels", "a=b,dht=DEBUG", []string{`"a" is not a subsystem;`, `"b", for a, is not a level;`, `"DEBUG", for dht, is not a level, did you mean debug?`}},
		{"log.format", "jsn", []string{"\"jsn\" is not a format, did you mean json?", "text and json"}},
	} {
		t.Run(c.key+"="+c.value, func(t *testing.T) {
			_, err := planOf(t, map[string]string{c.key: c.value}, guest(new(*slog.Logger)))
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) || !modules.Misconfigured(err) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
}

func TestConfigYAMLNamesEverySubsystem(t *testing.T) {
	text, err := os.ReadFile("../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, comment, _ := strings.Cut(string(text), "\nlog:")
	comment, _, _ = strings.Cut(comment, "\n  levels:")
	words := strings.FieldsFunc(comment, func(r rune) bool { return strings.ContainsRune(" ,.:#\n", r) })
	_, err = planOf(t, map[string]string{"log.levels": "x=info"})
	if err == nil {
		t.Fatal("x is a subsystem")
	}
	_, allowed, _ := strings.Cut(err.Error(), "allowed are ")
	names := strings.FieldsFunc(allowed, func(r rune) bool { return strings.ContainsRune(" ,", r) })
	for _, name := range names {
		if name != "and" && !slices.Contains(words, name) {
			t.Errorf("the comment of log.levels does not name %s", name)
		}
	}
	if len(names) != 15 {
		t.Errorf("allowed are %v", names)
	}
}

// quiet is a member whose log at info is kept.
func (m *member) quiet() *written {
	out := &written{}
	m.env.Log, m.settings["log.level"] = out, "info"
	return out
}

func TestSimFiveIdleMinutesAreAtMostTenLines(t *testing.T) {
	const most = 10
	t.Run("of natives with indexers", func(t *testing.T) {
		simulate(t, func(t *testing.T, s *simulation) {
			var outs []*written
			var natives []*member
			for i := range 3 {
				m := s.member(fmt.Sprintf("native-%d", i), map[string]string{"modules": "native,dht,gossip"})
				outs = append(outs, m.quiet())
				m.env.Process = i == 0 // what the libraries say of all of them counts here
				if i > 0 {
					m.settings["host.bootstrap"] = natives[0].addr()
				}
				m.start()
				natives = append(natives, m)
			}
			indexers := s.indexers(8, natives, false)
			one := s.member("heard", map[string]string{"modules": "indexer", "indexer.natives": natives[0].addr()})
			outs = append(outs, one.quiet())
			one.start()
			indexers = append(indexers, one)
			s.settle(natives, indexers)
			time.Sleep(10 * time.Second) // what the last one brought about has ended
			var before []int
			for _, out := range outs {
				before = append(before, len(out.lines()))
				if before[len(before)-1] == 0 {
					t.Error("a node has said nothing at all")
				}
			}
			time.Sleep(5 * time.Minute)
			for i, out := range outs {
				if n := len(out.lines()) - before[i]; n > most {
					t.Errorf("%d lines:\n%s", n, out)
				} else {
					t.Logf("%d lines before, %d in five minutes", before[i], n)
				}
			}
			stopAll(indexers, natives)
		})
	})
	t.Run("of a lone native", func(t *testing.T) {
		simulate(t, func(t *testing.T, s *simulation) {
			m := s.member("lone", map[string]string{"modules": "native,dht,gossip"})
			out := m.quiet()
			m.env.Process = true
			m.start()
			before := len(out.lines())
			time.Sleep(5 * time.Minute)
			if n := len(out.lines()) - before; n > most {
				t.Errorf("%d lines:\n%s", n, out)
			}
			m.stop()
		})
	})
}

func TestSimALoneNodeSaysOnceWhatToDo(t *testing.T) {
	const alone = `msg="alone so far: no other node has come, and host.bootstrap names none to join"`
	const down = "the address of a native that was stopped"
	for _, c := range []struct {
		name     string
		settings map[string]string
		after    func(s *simulation, m *member) []*member
		want     int
	}{
		{"a native without peers", map[string]string{"modules": "native,dht,gossip"}, nil, 1},
		{"a DHT node without peers", map[string]string{"modules": "dht"}, nil, 1},
		{"a native that shares with nobody", map[string]string{"modules": "native"}, nil, 0},
		{"a native whose bootstrap is down", map[string]string{"modules": "native,dht,gossip", "host.bootstrap": down}, nil, 0},
		{"a native that somebody has joined", map[string]string{"modules": "native,dht,gossip"},
			func(s *simulation, m *member) []*member {
				time.Sleep(50 * time.Second)
				return s.indexers(1, []*member{m}, false)
			}, 0},
		{"a native that had a peer", map[string]string{"modules": "native,dht,gossip"},
			func(s *simulation, m *member) []*member {
				x := s.indexers(1, []*member{m}, false)
				time.Sleep(5 * time.Second)
				stopAll(x)
				return nil
			}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				m := s.member("lone", maps.Clone(c.settings))
				if c.settings["host.bootstrap"] == down {
					native := s.member("native-0", map[string]string{"modules": "native,dht,gossip"})
					native.start()
					m.settings["host.bootstrap"] = native.addr()
					native.stop()
				}
				out := m.quiet()
				m.start()
				var others []*member
				if c.after != nil {
					others = c.after(s, m)
				} else {
					time.Sleep(59 * time.Second)
					if len(out.lines(alone)) != 0 {
						t.Error("it says so before a minute has passed")
					}
				}
				time.Sleep(10 * time.Minute)
				if got := out.lines(alone, "level=INFO", "logger=host", "--host.bootstrap", "ocnode status", "/p2p/"+string(m.node.PeerID())); len(got) != c.want {
					t.Errorf("says so %d times, want %d:\n%s", len(got), c.want, out)
				}
				if n := len(out.lines("native cannot be reached")); (n == 1) != (c.settings["host.bootstrap"] != "") {
					t.Errorf("warns of its bootstrap %d times:\n%s", n, out)
				}
				stopAll(others, []*member{m})
			})
		})
	}
}

func TestSimABootstrapThatGoesAndComesBackIsToldOnceEach(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		native := s.member("native-0", map[string]string{"modules": "native,dht,gossip"})
		native.start()
		m := s.member("joins", map[string]string{"modules": "native,dht,gossip", "host.bootstrap": native.addr()})
		out := m.quiet()
		m.start()
		const reached, follows = `level=INFO msg="native reached"`, `level=INFO msg="following a native"`
		for round := 1; round <= 2; round++ {
			time.Sleep(time.Minute)
			native.stop()
			time.Sleep(10 * time.Minute)
			if n := len(out.lines("level=WARN", "native cannot be reached", "hint=")); n != round {
				t.Errorf("after %d outages warned %d times:\n%s", round, n, out)
			}
			native.start()
			if _, ok := until(time.Minute, func() bool { return len(out.lines(reached)) == round && len(out.lines(follows)) == 1+round }); !ok {
				t.Errorf("after %d outages it is not told that it is back:\n%s", round, out)
			}
		}
		time.Sleep(10 * time.Second) // whatever is said beside that has been said
		rest := len(out.lines())
		for _, c := range []struct {
			part string
			want int
		}{
			{"msg=ready", 1}, {"this network is open", 1}, {follows, 3},
			{"native not followed any more", 2}, {"native cannot be reached", 2}, {reached, 2},
		} {
			n := len(out.lines(c.part))
			if n != c.want {
				t.Errorf("%s: told %d times, want %d:\n%s", c.part, n, c.want, out)
			}
			rest -= n
		}
		if rest != 0 {
			t.Errorf("%d lines of something else:\n%s", rest, out)
		}
		stopAll([]*member{m, native})
	})
}

func TestSimAnIndexerWhoseNativesAreDownIsBriefAboutIt(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		native := s.member("native-0", map[string]string{"modules": "native,dht,gossip"})
		native.start()
		addr := native.addr()
		native.stop()
		m := s.member("indexer-0", map[string]string{"modules": "indexer", "indexer.natives": addr})
		out := m.quiet()
		m.start()
		time.Sleep(10 * time.Minute)
		if n := len(out.lines("level=WARN", `msg="lease failed"`, "logger=indexer", "error=")); n != 1 {
			t.Errorf("warned %d times:\n%s", n, out)
		}
		native.start()
		if _, ok := until(time.Minute, func() bool { return len(out.lines("level=INFO", `msg="lease granted"`)) == 1 }); !ok {
			t.Errorf("it is not told that there is a lease:\n%s", out)
		}
		if n := len(out.lines()); n > 5 {
			t.Errorf("%d lines:\n%s", n, out)
		}
		stopAll([]*member{m, native})
	})
}
