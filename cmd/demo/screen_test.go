package demo

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"github.com/opencloud/ocnode/ports"
	"golang.org/x/term"
)

var update = flag.Bool("update", false, "write the screens in testdata anew")

// script is a stage on which nothing happens but what a test says.
type script struct {
	snap  snapshot
	taken bool
	asked []string
	err   error
	panic bool
}

func (s *script) look() (snapshot, []happening) { return s.snap, nil }
func (s *script) play() error                   { return nil }

func (s *script) takeOver() { s.taken = true }

func (s *script) set(name string, to state) error {
	if s.panic {
		panic("the stage breaks down")
	}
	s.asked = append(s.asked, fmt.Sprint(name, " ", to))
	for i := range s.snap.rows {
		if s.snap.rows[i].name == name {
			s.snap.rows[i].running, s.snap.rows[i].gone = to == running, to == stopped
		}
	}
	return s.err
}

func (s *script) more() error {
	s.asked = append(s.asked, "more")
	return s.err
}

// aNetwork is one of that size in which each of the first indexers is in another state,
// with a stranger.
func aNetwork(natives, indexers int) snapshot {
	s := snapshot{at: 83 * time.Second, natives: natives}
	id := func(role string, i int) ports.PeerID {
		return ports.PeerID(fmt.Sprintf("12D3KooW%032d%s%05d", i, role, i))
	}
	for i := range natives {
		s.rows = append(s.rows, row{
			name: fmt.Sprintf("native-%d", i+1), role: roleNative, id: id("Natives", i), running: i != 1, gone: i == 1, live: indexers,
			addrs: []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", 4101+i, id("Natives", i))}, http: fmt.Sprintf("127.0.0.1:%d", 4180+i),
		})
	}
	for i := range indexers {
		r := row{
			name: fmt.Sprintf("indexer-%d", i+1), role: roleIndexer, id: id("Indexer", i), running: true, known: true,
			addrs: []string{"/ip4/127.0.0.1/tcp/9"}, state: ports.StateLive, left: ttl - time.Duration(i%18)*100*time.Millisecond, seen: make([]mark, natives),
		}
		for n := range natives {
			r.seen[n] = markHeard
			if n == i%natives || n == (i+1)%natives {
				r.seen[n] = markLease
			}
			if n == 1 {
				r.seen[n] = markOff
			}
		}
		unseen := func() {
			r.state, r.left = "", 0
			for n := range r.seen {
				if r.seen[n] != markOff {
					r.seen[n] = markNone
				}
			}
		}
		switch i {
		case 1:
			r.state, r.left = ports.StateLate, 1500*time.Millisecond
		case 2:
			r.running, r.left = false, 200*time.Millisecond
		case 3:
			r.running = false
			unseen()
		case 4:
			unseen()
		case 5:
			r.id, r.known, r.running = "", false, false
			unseen()
		}
		s.rows = append(s.rows, r)
	}
	stranger := row{
		name: "…TFjYWaF9", role: roleStranger, id: "12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7TFjYWaF9", running: true, known: true,
		addrs: []string{"/ip4/192.0.2.1/tcp/4101"}, state: ports.StateLive, left: 3 * time.Second, seen: make([]mark, natives),
	}
	for n := range natives {
		stranger.seen[n] = [...]mark{markLease, markOff, markHeard}[min(n, 2)]
	}
	s.rows = append(s.rows, stranger)
	return s
}

// aScreen is one of that size which shows a network.
func aScreen(width, height int, s snapshot) (*screen, *script) {
	stage := &script{snap: s}
	m := newScreen(stage)
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	var news []happening
	for i := range 12 {
		h := happening{at: time.Duration(i) * 1234 * time.Millisecond, mood: mood(i % 3), text: fmt.Sprintf("event %d, of which there is more to tell than some terminals have room for, such as those of eighty columns", i+1)}
		news = append(news, h)
	}
	m.Update(looked{s, news})
	return m, stage
}

// press presses a key, and does what comes of it, as the library would.
func press(t *testing.T, m *screen, keys ...string) {
	t.Helper()
	for _, key := range keys {
		k := tea.KeyPressMsg{Text: key, Code: []rune(key)[0]}
		switch key {
		case "up":
			k = tea.KeyPressMsg{Code: tea.KeyUp}
		case "down":
			k = tea.KeyPressMsg{Code: tea.KeyDown}
		case "pgup":
			k = tea.KeyPressMsg{Code: tea.KeyPgUp}
		case "pgdown":
			k = tea.KeyPressMsg{Code: tea.KeyPgDown}
		case "enter":
			k = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "ctrl+c", "ctrl+z":
			k = tea.KeyPressMsg{Code: rune(key[len(key)-1]), Mod: tea.ModCtrl}
		}
		if k.String() != key && key != " " {
			t.Fatalf("%q is pressed as %q", key, k.String())
		}
		if _, cmd := m.Update(k); cmd != nil {
			m.Update(cmd())
		}
	}
}

func TestScreenLooksTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		width, height, natives, indexers int
		keys                             []string
	}{
		"80x24":         {80, 24, 3, 7, []string{"5"}},
		"120x40":        {120, 40, 3, 7, []string{"G"}},
		"130x24":        {130, 24, 3, 7, nil},
		"40x10":         {40, 10, 3, 7, []string{"6"}},
		"80x24 full":    {80, 24, MaxNatives, MaxIndexers, []string{"G", "k"}},
		"20x4":          {20, 4, 3, 7, []string{"j"}},
		"80x24 help":    {80, 24, 3, 7, []string{"?"}},
		"50x12 help":    {50, 12, 3, 7, []string{"?"}},
		"80x24 older":   {80, 24, 3, 7, []string{"pgup"}},
		"80x24 nothing": {80, 24, 0, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := aNetwork(max(1, c.natives), c.indexers)
			if c.natives == 0 {
				s = snapshot{}
			}
			m, _ := aScreen(c.width, c.height, s)
			press(t, m, c.keys...)
			v := m.View()
			if !v.AltScreen {
				t.Error("it does not take the whole screen")
			}
			var text strings.Builder
			for line := range strings.SplitSeq(ansi.Strip(v.Content), "\n") {
				text.WriteString(strings.TrimRight(line, " ") + "\n")
			}
			path := filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text.String()); diff != "" {
				t.Errorf("the screen has changed; look at it, and if it is right, go test ./cmd/demo -run Screen -update:\n%s", diff)
			}
		})
	}
}

func TestScreenFitsEverySize(t *testing.T) {
	for _, s := range []snapshot{{}, aNetwork(1, 0), aNetwork(3, 7), aNetwork(MaxNatives, MaxIndexers)} {
		for _, keys := range [][]string{nil, {"G"}, {"7", "?"}, {"pgup", "pgup"}} {
			for _, width := range []int{0, 1, 2, 3, 10, 20, 40, 50, 65, 70, 80, 100, 120, 150} {
				for _, height := range []int{0, 1, 2, 3, 4, 5, 7, 10, 16, 24, 80} {
					m, _ := aScreen(width, height, s)
					press(t, m, keys...)
					text := ansi.Strip(m.View().Content)
					lines := strings.Split(text, "\n")
					if len(lines) > max(1, height) {
						t.Fatalf("%dx%d, %d rows, %v: %d lines:\n%s", width, height, len(s.rows), keys, len(lines), text)
					}
					selected := 0
					for _, line := range lines {
						if lipgloss.Width(line) > width {
							t.Fatalf("%dx%d, %d rows, %v: a line is %d wide:\n%s", width, height, len(s.rows), keys, lipgloss.Width(line), text)
						}
						if strings.HasPrefix(line, ">") {
							selected++
						}
					}
					if width > 1 && height > 0 && len(s.rows) > 0 && selected != 1 {
						t.Fatalf("%dx%d, %d rows, %v: %d rows are selected:\n%s", width, height, len(s.rows), keys, selected, text)
					}
				}
			}
		}
	}
}

// Who registers a stranger copies the native's address from the screen.
func TestAUsualScreenHasTheWholeAddress(t *testing.T) {
	s := aNetwork(3, 7)
	for _, size := range [][2]int{{80, 24}, {80, 30}, {100, 30}, {50, 24}, {200, 24}} {
		m, _ := aScreen(size[0], size[1], s)
		for i, r := range s.rows {
			m.choose(i)
			var text strings.Builder // what stands beside the name
			shown := false
			for line := range strings.SplitSeq(ansi.Strip(m.View().Content), "\n") {
				lead, rest := ansi.Cut(line, 0, lipgloss.Width(r.name)), ansi.Cut(line, lipgloss.Width(r.name), size[0])
				shown = lead == r.name || shown && strings.TrimSpace(lead) == ""
				if shown {
					text.WriteString(strings.TrimSpace(rest))
				}
			}
			want := r.addrs[0]
			switch {
			case r.http != "":
				want = "http://" + r.http + want
			case r.id == "":
				want = "has not started yet"
			default:
				want += "/p2p/" + string(r.id)
			}
			if got := text.String(); got != want {
				t.Errorf("%v: of %s it shows %q, want %q", size, r.name, got, want)
			}
		}
	}
}

func TestEveryScreenSaysHowToQuit(t *testing.T) {
	for _, size := range [][2]int{{20, 5}, {30, 8}, {40, 10}, {50, 12}, {80, 24}, {200, 70}} {
		for _, keys := range [][]string{nil, {"?"}} {
			m, _ := aScreen(size[0], size[1], aNetwork(3, 7))
			press(t, m, keys...)
			if text := ansi.Strip(m.View().Content); !regexp.MustCompile(`(?m)^q +quit\b`).MatchString(text) || !regexp.MustCompile(`\? +keys\b`).MatchString(text) {
				t.Errorf("%v, %v: it does not say how to quit, or where the other keys are:\n%s", size, keys, text)
			}
		}
	}
}

func TestHelpShowsAllKeysOnceTheyFit(t *testing.T) {
	for _, size := range [][2]int{{30, 16}, {40, 10}, {50, 12}, {80, 24}} {
		m, _ := aScreen(size[0], size[1], aNetwork(3, 7))
		press(t, m, "?")
		text := ansi.Strip(m.View().Content)
		for _, k := range bindings.all() {
			if !regexp.MustCompile(regexp.QuoteMeta(k.Help().Key) + " +" + k.Help().Desc).MatchString(text) {
				t.Errorf("%v: it does not show %s:\n%s", size, k.Help().Key, text)
			}
		}
	}
}

// An indexer has expired where a native that runs has seen its lease end.
func TestStatesSayWhatTheNativesKnow(t *testing.T) {
	for name, c := range map[string]struct {
		row  row
		want string
	}{
		"a lease that ended":                 {row{known: true, seen: []mark{markNone, markOff}}, "expired"},
		"no native left to see it end":       {row{known: true, seen: []mark{markOff, markOff}}, "stopped"},
		"a lease that is running out":        {row{known: true, id: "x", state: ports.StateLive, seen: []mark{markHeard}}, "killed"},
		"a lease that was ended by a leave":  {row{known: true, id: "x", gone: true, seen: []mark{markNone, markOff}}, "left"},
		"a leave that nobody took":           {row{known: true, id: "x", gone: true, seen: []mark{markOff}}, "stopped"},
		"a leave that is under way":          {row{known: true, id: "x", gone: true, state: ports.StateLive, seen: []mark{markHeard}}, "stopped"},
		"it never had one":                   {row{seen: []mark{markNone}}, "stopped"},
		"it runs, and no native is left":     {row{running: true, known: true, seen: []mark{markOff}}, "unlisted"},
		"it runs, and has not registered":    {row{running: true, seen: []mark{markNone}}, "unlisted"},
		"it runs, and a heartbeat is missed": {row{running: true, known: true, state: ports.StateLate, seen: []mark{markLease}}, "late"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := aScreen(80, 24, aNetwork(1, 1))
			c.row.role, c.row.id = roleIndexer, "12D3KooW"
			if got, _ := m.state(c.row); got != c.want {
				t.Errorf("it is %s, want %s", got, c.want)
			}
		})
	}
}

func TestKeysMoveTheSelection(t *testing.T) {
	for name, c := range map[string]struct {
		keys []string
		want string
	}{
		"at first":             {nil, "native-1"},
		"down":                 {[]string{"down", "j"}, "native-3"},
		"up":                   {[]string{"5", "up", "k"}, "native-3"},
		"no further than up":   {[]string{"up"}, "native-1"},
		"a number":             {[]string{"4"}, "indexer-1"},
		"one that is not":      {[]string{"9", "9"}, "indexer-6"},
		"the last":             {[]string{"G"}, "…TFjYWaF9"},
		"no further than down": {[]string{"G", "j"}, "…TFjYWaF9"},
		"the first":            {[]string{"G", "g"}, "native-1"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := aScreen(80, 24, aNetwork(3, 7))
			press(t, m, c.keys...)
			if m.selected != c.want {
				t.Errorf("%v selects %s, want %s", c.keys, m.selected, c.want)
			}
		})
	}
}

func TestTheSelectionStaysWithItsNode(t *testing.T) {
	s := aNetwork(3, 7)
	m, _ := aScreen(80, 24, s)
	press(t, m, "G")
	more := s
	more.at += time.Second
	more.rows = append([]row{{name: "new"}}, s.rows...)
	m.Update(looked{more, nil})
	if m.selected != "…TFjYWaF9" || m.at != len(more.rows)-1 {
		t.Errorf("%s at %d is selected, want the stranger, wherever it goes", m.selected, m.at)
	}
	less := s
	less.at += 2 * time.Second
	less.rows = s.rows[:4]
	m.Update(looked{less, nil})
	if m.selected != "indexer-1" || m.at != 3 {
		t.Errorf("%s at %d is selected, want the last, since the stranger has gone", m.selected, m.at)
	}
	m.Update(looked{s, nil}) // which was seen before, and arrives late
	if len(m.snap.rows) != 4 {
		t.Error("an older look replaces a later one")
	}
}

func TestTogglesStopAndStartTheSelectedNode(t *testing.T) {
	for name, c := range map[string]struct {
		keys []string
		want []string
	}{
		"stop a native":        {[]string{"s"}, []string{"native-1 stopped"}},
		"start a native":       {[]string{"2", " "}, []string{"native-2 running"}},
		"stop an indexer":      {[]string{"4", "enter"}, []string{"indexer-1 stopped"}},
		"start an indexer":     {[]string{"6", "s"}, []string{"indexer-3 running"}},
		"stop and start":       {[]string{"4", "s", "s"}, []string{"indexer-1 stopped", "indexer-1 running"}},
		"kill an indexer":      {[]string{"4", "x"}, []string{"indexer-1 killed"}},
		"kill a native":        {[]string{"x", "x"}, []string{"native-1 killed", "native-1 running"}},
		"add an indexer":       {[]string{"a"}, []string{"more"}},
		"a stranger":           {[]string{"G", "s"}, nil},
		"keys that do nothing": {[]string{"y", "S", "ctrl+z"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m, stage := aScreen(80, 24, aNetwork(3, 7))
			press(t, m, c.keys...)
			if diff := cmp.Diff(c.want, stage.asked); diff != "" || !stage.taken {
				t.Error(diff, stage.taken)
			}
			if len(m.pending) > 0 {
				t.Errorf("%v is still under way", m.pending)
			}
		})
	}
}

func TestATogglesEndIsAwaited(t *testing.T) {
	m, stage := aScreen(80, 24, aNetwork(3, 7))
	stage.err = errors.New("it hangs")
	_, cmd := m.Update(tea.KeyPressMsg{Text: "s", Code: 's'})
	if text := ansi.Strip(m.View().Content); !strings.Contains(text, ">native-1   native    stopping") {
		t.Errorf("it does not say that native-1 is stopping:\n%s", text)
	}
	if _, again := m.Update(tea.KeyPressMsg{Text: "s", Code: 's'}); again != nil || len(stage.asked) > 0 {
		t.Error("what is stopping is stopped again")
	}
	m.Update(cmd())
	text := ansi.Strip(m.View().Content)
	if !strings.Contains(text, ">native-1   native    stopped") || !strings.Contains(text, "it hangs") {
		t.Errorf("it does not say what came of it:\n%s", text)
	}
}

func TestEventsScroll(t *testing.T) {
	m, _ := aScreen(80, 24, aNetwork(3, 7))
	n := m.layout().events
	expect := func(what string, want int) {
		t.Helper()
		if last := ansi.Strip(m.events(n)[n-1]); !strings.Contains(last+",", fmt.Sprintf(" event %d,", want)) {
			t.Errorf("%s: the last is %q, want event %d", what, last, want)
		}
	}
	expect("at first", 12)
	press(t, m, "pgup")
	expect("scrolled back", n)
	m.Update(looked{m.snap, []happening{{text: "event 13"}}})
	expect("while more happens", n)
	press(t, m, "pgdown", "pgdown")
	expect("scrolled to the end", 13)
	for range 99 {
		press(t, m, "pgup")
	}
	expect("scrolled to the first", n)
	for i := range maxTold {
		m.Update(looked{m.snap, []happening{{text: fmt.Sprintf("event %d", i)}}})
	}
	if len(m.told) != maxTold || m.back >= maxTold {
		t.Errorf("%d events are kept, %d of them scrolled away", len(m.told), m.back)
	}
}

func TestTheScreenEnds(t *testing.T) {
	quits := func(cmd tea.Cmd) bool {
		if cmd == nil {
			return false
		}
		_, ok := cmd().(tea.QuitMsg)
		return ok
	}
	for _, k := range []tea.KeyPressMsg{{Text: "q", Code: 'q'}, {Code: 'c', Mod: tea.ModCtrl}} {
		m, _ := aScreen(80, 24, aNetwork(3, 7))
		if _, cmd := m.Update(k); !quits(cmd) {
			t.Errorf("%s does not quit", k)
		}
	}
	m, _ := aScreen(80, 24, aNetwork(3, 7))
	if _, cmd := m.Update(played{}); quits(cmd) {
		t.Error("it quits after the story, with somebody watching")
	}
	broken := errors.New("no port")
	if _, cmd := m.Update(played{broken}); !quits(cmd) || !errors.Is(m.failure, broken) {
		t.Errorf("a network that does not come up leaves %v", m.failure)
	}
	m.suspend = nothing{}
	if _, cmd := m.Update(tea.KeyPressMsg{Code: 'z', Mod: tea.ModCtrl}); cmd == nil || cmd() != (handOver{m.suspend}) {
		t.Error("ctrl+z does not suspend it")
	}
}

func TestWhatIsToldIsOneLineThatMovesNoCursor(t *testing.T) {
	if got, want := oneLine("failed:\n  * [/ip4]\x1b[2J\a no\tport\n"), "failed: * [/ip4][2J no port"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A mistake of ours must not cost anybody the terminal.
func TestAPanicLeavesTheTerminalAsItWas(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	sent, pressed := "", false
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 1<<10)
		for {
			n, err := master.Read(b)
			if err != nil {
				return // the other side is closed
			}
			sent += string(b[:n])
			if !pressed && strings.Contains(sent, ansi.SetModeAltScreenSaveCursor) {
				_, err := io.WriteString(master, "s")
				pressed = err == nil
			}
		}
	})
	before, err := term.GetState(int(slave.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	stage := &script{snap: aNetwork(3, 7), panic: true}
	m := newScreen(stage)
	m.Update(looked{stage.snap, nil})
	_, err = tea.NewProgram(m, tea.WithInput(slave), tea.WithOutput(slave), tea.WithoutSignalHandler(), tea.WithEnvironment([]string{"TERM=xterm"})).Run()
	if err != nil || m.failure == nil || !strings.Contains(m.failure.Error(), "(*script).set") {
		t.Errorf("it ends with %v, %v; want the panic and where it was", err, m.failure)
	}
	if after, err := term.GetState(int(slave.Fd())); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the terminal's state is %v, %v; it was %v", after, err, before)
	}
	_ = slave.Close()
	reading.Wait()
	_ = master.Close()
	if left, entered := strings.LastIndex(sent, ansi.ResetModeAltScreenSaveCursor), strings.LastIndex(sent, ansi.SetModeAltScreenSaveCursor); entered < 0 || left < entered {
		t.Errorf("the screen was entered at %d and left at %d", entered, left)
	}
}

func BenchmarkScreen(b *testing.B) {
	m, _ := aScreen(160, 70, aNetwork(MaxNatives, MaxIndexers))
	for b.Loop() {
		_ = m.View()
	}
}
