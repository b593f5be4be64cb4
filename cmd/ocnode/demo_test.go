package main_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

var updateDemo = flag.Bool("update-demo", false, "write the screens in docs/demo.md anew")

// tty is a run of the binary on a terminal.
type tty struct {
	*ocnodetest.Process          // whose log has all that the terminal was sent
	pty, end            *os.File // the terminal's side, and the process's
	t                   *testing.T
	mu                  sync.Mutex
	term                *vt.Emulator // it takes from the process under mu, and answers without
	before              *term.State
}

// launchTTY starts a command, the binary unless it is given, as launch does, on a
// terminal of that size.
func launchTTY(t *testing.T, width, height int, environ []string, command ...string) *tty {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	x := &tty{term: vt.NewEmulator(width, height), pty: master, end: slave, t: t}
	x.size(t, width, height)
	if x.before, err = term.GetState(int(slave.Fd())); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := ocnodetest.Command(command[0], dir, append([]string{"TMPDIR=" + dir, "TERM=xterm-256color"}, environ...), command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	x.Process = ocnodetest.Start(t, cmd)
	reading, answering := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(reading)
		_, _ = io.Copy(x, master) // until it is closed
	}()
	go func() { // what the terminal is asked, it answers
		defer close(answering)
		_, _ = io.Copy(master, x.term)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen is\n%s", x.text())
		}
		_ = slave.Close()
		_ = master.Close()
		<-reading
		_ = x.term.InputPipe().(io.Closer).Close() // Close would race with Read
		<-answering
	})
	return x
}

func demoTTY(t *testing.T, environ []string, args ...string) *tty {
	t.Helper()
	return launchTTY(t, 100, 30, environ, append([]string{binary, "demo"}, args...)...)
}

func (x *tty) size(t *testing.T, width, height int) {
	t.Helper()
	x.mu.Lock()
	x.term.Resize(width, height)
	x.mu.Unlock()
	if err := pty.Setsize(x.pty, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}); err != nil {
		t.Fatal(err)
	}
}

// Write takes what the process sends.
func (x *tty) Write(b []byte) (int, error) {
	_, _ = x.Log.Write(b) // it takes everything
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.term.Write(b)
}

// drawn reports whether the process has the screen to itself, or hides the cursor.
func (x *tty) drawn() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.term.IsAltScreen() || x.term.CursorHidden()
}

// text is what stands on the screen.
func (x *tty) text() string {
	x.mu.Lock()
	lines := strings.Split(x.term.String(), "\n")
	x.mu.Unlock()
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// shows waits for the screen to have what pattern says, in which ^ and $ are those of
// lines, and returns that screen. What the process sent last may arrive after its end.
func (x *tty) shows(pattern string) (text string) {
	x.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	ocnodetest.Eventually(x.t, "the screen shows "+pattern, func() bool {
		text = x.text()
		return re.MatchString(text)
	})
	return text
}

func (x *tty) press(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.pty, keys); err != nil {
		x.t.Fatal(err)
	}
}

// signalForeground sends a signal to the job that has the terminal.
func (x *tty) signalForeground(s syscall.Signal) {
	x.t.Helper()
	conn, err := x.pty.SyscallConn()
	if err != nil {
		x.t.Fatal(err)
	}
	var killed error
	if err := conn.Control(func(fd uintptr) {
		job, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP)
		if err == nil {
			err = syscall.Kill(job, s)
		}
		killed = err
	}); err != nil || killed != nil {
		x.t.Fatal(err, killed)
	}
}

// restored checks that the process left its terminal and its folder as they were.
func (x *tty) restored() {
	x.t.Helper()
	ocnodetest.Eventually(x.t, "the terminal is as it was", func() bool { return !x.drawn() })
	after, err := term.GetState(int(x.end.Fd()))
	if err != nil || !reflect.DeepEqual(after, x.before) {
		x.t.Errorf("the terminal's state is %v, %v; it was %v", after, err, x.before)
	}
	if left, err := filepath.Glob(filepath.Join(x.Cmd.Dir, "*")); err != nil || len(left) > 0 {
		x.t.Errorf("it left %v, %v", left, err)
	}
}

const (
	bar    = `[█░]+ +\d\.\ds`
	titled = `^ocnode demo  %d of 3 natives up, %d live +\d+:\d\d$`

	killedOrExpired = `^>indexer-2  indexer   (killed +` + bar + `  ○  ●  ●|expired +·  ·  ·)$`
)

// The whole of the demo as somebody plays with it, on a real terminal. The screens on
// the way are those of docs/demo.md.
func TestDemoOnATerminalStopsAndStartsNodes(t *testing.T) {
	t.Parallel()
	// While the machine stands still leases run out, and the screens show it.
	for _, fault := range ocnodetest.Undisturbed(func() []string { return holdDocs(t, playTheDemo(t)) }) {
		t.Error(fault)
	}
}

// playTheDemo returns names of screens and what they show, in turn.
func playTheDemo(t *testing.T) (screens []string) {
	t.Helper()
	x := demoTTY(t, nil)
	take := func(name, text string) { screens = append(screens, name, text) }

	x.shows("^ocnode demo")
	x.press("j") // from here on, nothing stops by itself
	x.shows(fmt.Sprintf(titled, 3, 5))
	for i, seen := range []string{"●  ●  ○", "○  ●  ●", "●  ○  ●", "●  ●  ○", "○  ●  ●"} {
		x.shows(fmt.Sprintf(`^.indexer-%d  indexer   (live|late) +%s  %s$`, i+1, bar, seen))
	}
	// Two indexers are home to native-2 and another: stop it first, while all is well.
	x.press("5") // indexer-2
	x.shows(`^>indexer-2 `)
	take("Everything is live", x.shows(fmt.Sprintf(`^>indexer-2  indexer   live +%s  ○  ●  ●$`, bar)))

	x.press("x")
	x.shows(`indexer-2 is killed; its lease runs out in at most 4s$`)
	killed := x.shows(killedOrExpired)
	for range 3 {
		if strings.Contains(killed, "indexer-2  indexer   killed") {
			break
		}
		x.press("x") // the machine stood still for its lease: once more
		x.shows(fmt.Sprintf(`^>indexer-2  indexer   live +%s  ○  ●  ●$`, bar))
		x.press("x")
		killed = x.shows(killedOrExpired)
	}
	take("indexer-2 is killed", killed)
	take("indexer-2 has expired", x.shows(`^>indexer-2  indexer   expired +·  ·  ·$`))
	for i := range 3 {
		x.shows(fmt.Sprintf(`indexer-2 expired at native-%d$`, i+1))
	}
	x.shows(fmt.Sprintf(titled, 3, 4))
	x.press(" ")
	x.shows(fmt.Sprintf(`^>indexer-2  indexer   live +%s  ○  ●  ●$`, bar))
	x.shows(fmt.Sprintf(titled, 3, 5))

	x.press("s")
	x.shows(`indexer-2 is stopped, and leaves$`)
	for i := range 3 {
		x.shows(fmt.Sprintf(`indexer-2 left native-%d$`, i+1))
	}
	take("indexer-2 has left", x.shows(`^>indexer-2  indexer   left +·  ·  ·$`))
	x.press("s")
	x.shows(fmt.Sprintf(`^>indexer-2  indexer   live +%s  ○  ●  ●$`, bar))
	x.shows(fmt.Sprintf(titled, 3, 5))

	x.press("2\r") // native-2
	x.shows(`^>native-2   native    stopped`)
	x.shows(fmt.Sprintf(titled, 2, 5))
	// Longer than whatever native-2 granted: nobody is lost, unless the machine stands still.
	for stopped := time.Now(); time.Since(stopped) < 5*time.Second; time.Sleep(sampleEvery) {
		if text := x.text(); !strings.Contains(text, "2 of 3 natives up, 5 live") {
			if !ocnodetest.StoodStill() {
				t.Fatalf("with native-2 stopped, the others lost somebody:\n%s", text)
			}
			x.shows(fmt.Sprintf(titled, 2, 5))
			stopped = time.Now()
		}
	}
	take("native-2 is stopped", x.shows(fmt.Sprintf(`^.indexer-2  indexer   live +%s  ○  ×  ●$`, bar)))
	x.press("s")
	pressed, up := time.Now(), regexp.MustCompile(`(?m)^>native-2   native    up        5 live`)
	ocnodetest.Eventually(t, "native-2 is up again", func() bool {
		text := x.text()
		taken := strings.Contains(text, ">native-2   native    stopped") && strings.Contains(text, "address already in use")
		if taken && time.Since(pressed) > 3*time.Second { // somebody else had its port for a moment
			x.press("s")
			pressed = time.Now()
		}
		return up.MatchString(text)
	})
	x.shows(fmt.Sprintf(`^.indexer-2  indexer   (live|late) +%s  ○  ●  ●$`, bar))
	x.shows(fmt.Sprintf(titled, 3, 5))

	x.press("a")
	x.shows(`^.indexer-6  indexer   live`)

	x.press("?")
	x.shows(`add an indexer .*ctrl\+z|older events`)
	x.press("?")
	x.press("q")
	x.ExpectExit(0)
	x.restored()
	x.shows(`^ *\d+\.\d{3}s  the demo ends$`)
	return screens
}

// holdDocs holds the screens of docs/demo.md against those that were taken: their names,
// and their lines but for what differs by run. It returns what is not the same.
func holdDocs(t *testing.T, screens []string) (faults []string) {
	t.Helper()
	const path = "../../docs/demo.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	docs := string(text)
	for i := 0; i < len(screens); i += 2 {
		name, screen := screens[i], screens[i+1]
		re := regexp.MustCompile("(?s)(\n## " + regexp.QuoteMeta(name) + "\n.*?```text\n)(.*?)(```\n)")
		m := re.FindStringSubmatch(docs)
		switch {
		case m == nil:
			faults = append(faults, fmt.Sprintf("%s has no screen %q", path, name))
		case *updateDemo:
			docs = strings.Replace(docs, m[0], m[1]+screen+m[3], 1)
		case timeless(m[2]) != timeless(screen):
			faults = append(faults, fmt.Sprintf("%s: the screen %q is not today's; write it anew with go test ./cmd/ocnode -run Demo -update-demo\nit has\n%s\nwant\n%s", path, name, timeless(m[2]), timeless(screen)))
		}
	}
	if *updateDemo {
		write(t, path, docs)
	}
	return faults
}

// changing are the parts of a screen that differ by run, and what stands in for them.
var changing = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`[█░]+ +\d\.\ds`), "BAR"},
	{regexp.MustCompile(`\blate\b`), "live"},
	{regexp.MustCompile(`\d+:\d\d$`), "TIME"},
	{regexp.MustCompile(`  (/ip4/|http://).*`), " ADDRESS"},
	{regexp.MustCompile(` +`), " "},
	{regexp.MustCompile(`^ *\d+\.\d{3}s .*`), ""}, // an event
}

// timeless keeps of a screen what is the same in every run.
func timeless(screen string) string {
	var kept []string
	for line := range strings.SplitSeq(screen, "\n") {
		for _, c := range changing {
			line = c.pattern.ReplaceAllString(line, c.instead)
		}
		if line != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// small is a network that costs next to nothing, for what does not depend on its size.
var small = []string{"--natives", "1", "--indexers", "1"}

// However the demo ends, it leaves nothing behind.
func TestDemoLeavesTheTerminalAsItWas(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(x *tty){
		"q while it comes up": func(x *tty) { x.press("q") },
		"ctrl-c":              func(x *tty) { x.shows("1 live"); x.press("\x03") },
		"SIGTERM":             func(x *tty) { x.shows("1 live"); x.Signal(syscall.SIGTERM) },
		"SIGINT":              func(x *tty) { x.shows("1 live"); x.Signal(syscall.SIGINT) },
		"SIGHUP":              func(x *tty) { x.shows("1 live"); x.Signal(syscall.SIGHUP) },
		"SIGQUIT":             func(x *tty) { x.shows("1 live"); x.Signal(syscall.SIGQUIT) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := demoTTY(t, nil, small...)
			x.shows("^ocnode demo")
			end(x)
			x.ExpectExit(0) // nodes that do not stop in their time make it 1
			x.restored()
		})
	}
	t.Run("its terminal is closed", func(t *testing.T) {
		t.Parallel()
		x := demoTTY(t, nil, small...)
		x.shows("1 live")
		_ = x.pty.Close()
		x.Wait(ocnodetest.Patience)
		if left, _ := filepath.Glob(filepath.Join(x.Cmd.Dir, "*")); len(left) > 0 {
			t.Errorf("it left %v", left)
		}
	})
	t.Run("--for", func(t *testing.T) {
		t.Parallel()
		x := demoTTY(t, nil, slices.Concat(small, []string{"--for", "12s"})...)
		x.shows(`^ocnode demo  \d of 1 natives up, \d live +0:\d\d of 0:12$`)
		x.ExpectExit(0)
		x.restored()
	})
}

// A shell suspends the demo and brings it back, whoever stopped it.
func TestDemoCanBeSuspended(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stop       func(x *tty)
		unforeseen bool // so that the screen stays as it is
	}{
		"ctrl-z":  {func(x *tty) { x.press("\x1a") }, false},
		"SIGTSTP": {func(x *tty) { x.signalForeground(syscall.SIGTSTP) }, false},
		"SIGSTOP": {func(x *tty) { x.signalForeground(syscall.SIGSTOP) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Shells set the terminal as they need it, and leave it so.
			const shell = `was=$(stty -g); "$@"; for i in 1 2; do stty $was; echo suspended $i; read again; fg; done; echo ended: $?`
			x := launchTTY(t, 100, 30, nil, append([]string{"sh", "-mc", shell, "sh", binary, "demo"}, small...)...)
			x.shows("1 live")
			for i := range 2 {
				c.stop(x)
				x.shows(fmt.Sprint("suspended ", i+1))
				if x.drawn() != c.unforeseen {
					t.Errorf("a suspended demo keeps the screen: %v", x.drawn())
				}
				x.press("\n")
				ocnodetest.Eventually(t, "the demo alone stands on the screen", func() bool {
					text := x.text()
					return strings.HasPrefix(text, "ocnode demo") && !strings.Contains(text, "suspended")
				})
			}
			x.press("j")
			x.shows("^>indexer-1 ")
			x.press("q")
			if end := x.shows(`^ended: \d+$`); !strings.Contains(end, "ended: 0") && !(strings.Contains(end, "deadline exceeded") && ocnodetest.StoodStill()) {
				t.Errorf("the demo ended with an error:\n%s", end)
			}
			x.ExpectExit(0)
			x.restored()
		})
	}
}

// Whoever only watches sees the story that is told where there is no terminal.
func TestDemoOnATerminalPlaysByItself(t *testing.T) {
	t.Parallel()
	x := demoTTY(t, nil, "--natives", "2", "--indexers", "1", "--for", "1m")
	story := "(?s)"
	for _, event := range []string{
		`registered with native-\d`, `is killed; its lease runs out in at most 4s`, `expired at native-\d`,
		`registered with native-\d`, `is stopped, and leaves`, `left native-\d`, `registered with native-\d`,
	} {
		story += `.* {2}indexer-1 ` + event + `$`
	}
	x.shows(story)
	x.shows(`^.indexer-1  indexer   live `)
	x.Signal(syscall.SIGTERM)
	x.ExpectExit(0)
	x.restored()
}

// Nothing is told of leases that nobody holds, nor of natives that are not there.
func TestDemoWithoutANativeTellsOfNoLease(t *testing.T) {
	t.Parallel()
	x := demoTTY(t, nil, small...)
	x.shows("^ocnode demo")
	x.press("j") // from here on, nothing stops by itself
	x.shows("1 live")
	x.press("1s")
	x.shows(`native-1 is stopped; no native is left to list what it granted$`)
	x.shows(`^>native-1   native    stopped`)
	x.press("2s")
	x.shows(`indexer-1 is stopped; no native lists it$`)
	x.shows(`^>indexer-1  indexer   stopped +×$`)
	x.press("q")
	x.ExpectExit(0)
	x.restored()
}

// Whoever registers with a native of the demo has a row for as long as it is listed, and
// cannot be stopped there.
func TestDemoOnATerminalShowsStrangers(t *testing.T) {
	t.Parallel()
	x := demoTTY(t, nil, "--natives", "2", "--indexers", "0")
	x.shows(`^ocnode demo  2 of 2 natives up`)
	native := regexp.MustCompile(`(?m)^native-1  http://\S+\n +(/ip4/\S+/p2p/\w+)$`).FindStringSubmatch(x.shows(`^native-1  http://`))
	if native == nil {
		t.Fatal("the address of native-1 is not there whole")
	}
	stranger := newSeed(t)
	id := stranger.ID().String()
	re := regexp.MustCompile(`(?m)^.12D3Koo…` + id[len(id)-6:] + `  stranger  (live|late) +` + bar + `  ●  ○$`)
	var renewed time.Time
	renew := func() {
		if time.Since(renewed) > time.Second {
			register(t, stranger, native[1])
			renewed = time.Now()
		}
	}
	ocnodetest.Eventually(t, "the screen shows the stranger", func() bool { renew(); return re.MatchString(x.text()) })
	renew()
	x.press("Gs")
	x.shows("is none of the demo's nodes")
	x.shows(`expired at native-2$`)
	x.shows(`^>native-2 `) // since the row that was selected has gone
	x.press("q")
	x.ExpectExit(0)
	x.restored()
}

func TestDemoFitsTheTerminal(t *testing.T) {
	t.Parallel()
	x := demoTTY(t, nil, "--natives", "2", "--indexers", "7")
	x.shows("7 live")
	x.press("G")
	x.shows("^>indexer-7 ")
	for _, size := range [][2]int{{40, 10}, {10, 3}, {1, 1}, {200, 70}, {80, 24}} {
		x.size(t, size[0], size[1])
		switch {
		case size[0] >= 40:
			x.shows("^>indexer-7 .*(live|late)")
			if size[1] >= 10 {
				x.shows("^ NODE .*STATE .*TTL")
			}
		default:
			x.shows(`^(>|>in|…)`)
		}
	}
	x.press("q")
	x.ExpectExit(0)
	x.restored()
}

func TestDemoWithoutColour(t *testing.T) {
	t.Parallel()
	colour := regexp.MustCompile(`\x1b\[[0-9;:]*(3[0-7]|38|4[0-7]|9[0-7])[0-9;:]*m`)
	for name, c := range map[string]struct {
		environ, args []string
		coloured      bool
	}{
		"as it comes": {nil, nil, true},
		"NO_COLOR":    {[]string{"NO_COLOR=yes"}, nil, false},
		"--no-color":  {nil, []string{"--no-color"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := demoTTY(t, c.environ, append(c.args, small...)...)
			x.shows("1 live")
			x.shows(`█`)
			x.press("q")
			x.ExpectExit(0)
			x.restored()
			if got := colour.MatchString(x.Log.String()); got != c.coloured {
				t.Errorf("coloured: %v, want %v", got, c.coloured)
			}
		})
	}
}

func TestDemoTellsLinesWhereItCannotDraw(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]string{"a dumb terminal": "TERM=dumb", "an unknown one": "TERM="} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := demoTTY(t, []string{environ}, slices.Concat(small, []string{"--for", "0"})...)
			x.shows(`registered with native-1`)
			x.Signal(syscall.SIGTERM)
			x.ExpectExit(0)
			x.shows(`the demo ends$`)
			if log := x.Log.String(); strings.Contains(log, "\x1b") {
				t.Errorf("it has escape codes: %q", log)
			}
			x.restored()
		})
	}
	t.Run("a pipe that nobody reads", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := ocnodetest.Command(binary, dir, []string{"TMPDIR=" + dir}, "demo", "--for", "0")
		cmd.Stdout = w
		p := ocnodetest.Start(t, cmd)
		_ = w.Close() // the process has its own
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		_ = r.Close()
		p.ExpectExit(0)
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Errorf("it left %v", left)
		}
	})
}
