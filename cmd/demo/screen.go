package demo

import (
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"charm.land/bubbles/v2/help"
	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"
)

// pollEvery is how often the natives are asked: often enough for the bars to run down
// smoothly, which have ttl for it.
const pollEvery = 200 * time.Millisecond

// stage is what the screen shows and changes. All methods may be called concurrently;
// those with an error may take seconds, and run beside the screen's loop.
type stage interface {
	look() (snapshot, []happening)
	play() error
	takeOver() // at each key
	set(name string, to state) error
	more() error
}

// state is what a node can be made to be.
type state int

const (
	stopped state = iota
	killed
	running
)

func (s state) String() string { return [...]string{"stopped", "killed", "running"}[s] }

// screen is the demo on a terminal: its state, and how that changes. What it looks like
// is in view.go.
type screen struct {
	stage
	length  time.Duration   // 0 for no end
	suspend tea.ExecCommand // nil if no shell could bring the demo back

	width, height int
	snap          snapshot
	told          []happening
	back          int             // how many of the latest happenings are scrolled away
	selected      string          // the name of a row
	at            int             // where that row is, or was before it went
	pending       map[string]bool // whom somebody starts (true) or stops
	help          help.Model
	failure       error
}

var _ tea.Model = (*screen)(nil)

func newScreen(s stage) *screen {
	m := &screen{stage: s, pending: make(map[string]bool), help: help.New()}
	m.help.Styles = help.Styles{}
	return m
}

// The messages, besides those of keys and of the terminal's size.
type (
	// looked is what was seen; the next look follows it.
	looked struct {
		snap snapshot
		news []happening
	}
	// changed is what came of a change that somebody asked for.
	changed struct {
		looked
		name string
		err  error
	}
	// played is the end of the story, or of the demo if there is an error.
	played struct{ err error }
	// handOver takes the screen off the terminal for as long as a command runs.
	handOver struct{ tea.ExecCommand }
)

// nothing is a command that does nothing. A handover to it draws the screen anew on a
// terminal that somebody else has had meanwhile.
type nothing struct{}

// handOverPause is how long a handover lasts at least. Bubble Tea 2.1 stops its ticker in
// a goroutine that it doesn't wait for: a screen that is taken back before that has run is
// never drawn again.
const handOverPause = 50 * time.Millisecond

func (nothing) Run() error          { time.Sleep(handOverPause); return nil }
func (nothing) SetStdin(io.Reader)  {}
func (nothing) SetStdout(io.Writer) {}
func (nothing) SetStderr(io.Writer) {}

// Init starts the story, and the first look.
func (m *screen) Init() tea.Cmd {
	return tea.Batch(m.lookAgain(0), guarded(func() tea.Msg { return played{m.play()} }))
}

func (m *screen) lookAgain(after time.Duration) tea.Cmd {
	look := guarded(func() tea.Msg {
		snap, news := m.look()
		return looked{snap, news}
	})
	return tea.Tick(after, func(time.Time) tea.Msg { return look() })
}

// guarded makes the demo's end of a panic beside the loop, for which the library would
// not wait, so that it is told once the terminal is back.
func guarded(do func() tea.Msg) tea.Cmd {
	return func() (msg tea.Msg) {
		defer func() {
			if r := recover(); r != nil {
				msg = played{fmt.Errorf("panic: %v\n%s", r, debug.Stack())}
			}
		}()
		return do()
	}
}

// Update takes in what happened, and never waits for anything.
func (m *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case looked:
		m.see(msg)
		return m, m.lookAgain(pollEvery)
	case changed:
		delete(m.pending, msg.name)
		m.see(msg.looked)
		if msg.err != nil {
			m.note(msg.err)
		}
	case played:
		if msg.err != nil {
			m.failure = msg.err
			return m, tea.Quit
		}
	case handOver:
		return m, tea.Exec(msg, func(err error) tea.Msg { return played{err} })
	case tea.KeyPressMsg:
		m.takeOver()
		return m, m.press(msg)
	}
	return m, nil
}

// see takes in a look. Looks may arrive out of order, and then the later one counts.
func (m *screen) see(l looked) {
	m.told = latest(append(m.told, l.news...))
	if m.back > 0 { // who has scrolled back reads on where he is
		m.back = m.scrolled(m.back + len(l.news))
	}
	if l.snap.at < m.snap.at {
		return
	}
	m.snap = l.snap
	if i := slices.IndexFunc(m.snap.rows, func(r row) bool { return r.name == m.selected }); i >= 0 {
		m.at = i
	} else {
		m.choose(m.at)
	}
}

// scrolled returns how far back the events are when they are to be that far, which is
// never past the first.
func (m *screen) scrolled(back int) int {
	return max(0, min(back, len(m.told)-m.layout().events))
}

// note tells the one who watches what came of what he did.
func (m *screen) note(err error) {
	m.told = latest(append(m.told, happening{m.snap.at, sadly, oneLine(err.Error())}))
	m.back = 0
}

// choose selects a row, the nearest there is.
func (m *screen) choose(i int) {
	m.at = max(0, min(i, len(m.snap.rows)-1))
	m.selected = ""
	if len(m.snap.rows) > 0 {
		m.selected = m.snap.rows[m.at].name
	}
}

// press does what a key is for.
func (m *screen) press(k tea.KeyPressMsg) tea.Cmd {
	switch keys := bindings; {
	case key.Matches(k, keys.quit):
		return tea.Quit
	case key.Matches(k, keys.suspend) && m.suspend != nil:
		return func() tea.Msg { return handOver{m.suspend} }
	case key.Matches(k, keys.up):
		m.choose(m.at - 1)
	case key.Matches(k, keys.down):
		m.choose(m.at + 1)
	case key.Matches(k, keys.first):
		m.choose(0)
	case key.Matches(k, keys.last):
		m.choose(len(m.snap.rows) - 1)
	case key.Matches(k, keys.number):
		n, _ := strconv.Atoi(k.String())
		m.choose(n - 1)
	case key.Matches(k, keys.older):
		m.back = m.scrolled(m.back + m.layout().events)
	case key.Matches(k, keys.newer):
		m.back = max(m.back-m.layout().events, 0)
	case key.Matches(k, keys.help):
		m.help.ShowAll = !m.help.ShowAll
	case key.Matches(k, keys.more):
		return m.change("", m.more)
	case key.Matches(k, keys.toggle):
		return m.toggle(stopped)
	case key.Matches(k, keys.kill):
		return m.toggle(killed)
	}
	return nil
}

// toggle ends the selected node if it runs, in one way or the other, and starts it if it
// does not.
func (m *screen) toggle(end state) tea.Cmd {
	if len(m.snap.rows) == 0 {
		return nil
	}
	r := m.snap.rows[m.at]
	if _, ok := m.pending[r.name]; ok {
		return nil
	}
	if r.role == roleStranger {
		m.note(fmt.Errorf("%s is none of the demo's nodes: it ends where it was started", r.name))
		return nil
	}
	to := end
	if !r.running {
		to = running
	}
	m.pending[r.name] = to == running
	return m.change(r.name, func() error { return m.set(r.name, to) })
}

// change changes something beside the loop, and looks at what came of it.
func (m *screen) change(name string, do func() error) tea.Cmd {
	return guarded(func() tea.Msg {
		err := do()
		snap, news := m.look()
		return changed{looked{snap, news}, name, err}
	})
}

// keyMap is what the keys are for.
type keyMap struct {
	up, down, first, last, number, toggle, kill, more, older, newer, help, quit, suspend key.Binding
}

var bindings = keyMap{
	up:      key.NewBinding(key.WithKeys("up", "k"), key.WithHelp("↑/k", "up")),
	down:    key.NewBinding(key.WithKeys("down", "j"), key.WithHelp("↓/j", "down")),
	first:   key.NewBinding(key.WithKeys("home", "g"), key.WithHelp("g", "first")),
	last:    key.NewBinding(key.WithKeys("end", "G"), key.WithHelp("G", "last")),
	number:  key.NewBinding(key.WithKeys("1", "2", "3", "4", "5", "6", "7", "8", "9"), key.WithHelp("1-9", "that row")),
	toggle:  key.NewBinding(key.WithKeys("s", "space", "enter"), key.WithHelp("s", "stop/start")),
	kill:    key.NewBinding(key.WithKeys("x"), key.WithHelp("x", "kill/start")),
	more:    key.NewBinding(key.WithKeys("a"), key.WithHelp("a", "add an indexer")),
	older:   key.NewBinding(key.WithKeys("pgup"), key.WithHelp("pgup", "older events")),
	newer:   key.NewBinding(key.WithKeys("pgdown"), key.WithHelp("pgdn", "newer events")),
	help:    key.NewBinding(key.WithKeys("?"), key.WithHelp("?", "keys")),
	quit:    key.NewBinding(key.WithKeys("q", "ctrl+c"), key.WithHelp("q", "quit")),
	suspend: key.NewBinding(key.WithKeys("ctrl+z"), key.WithHelp("ctrl+z", "suspend")),
}

// inLine are the keys of the line at the bottom. Where it is too short, it loses the
// last: how to end the demo, and where the other keys stand, has to be there.
func (k keyMap) inLine() []key.Binding {
	return []key.Binding{k.quit, k.help, k.up, k.down, k.toggle, k.kill, k.more}
}

// all are those that ? shows.
func (k keyMap) all() []key.Binding {
	return []key.Binding{k.quit, k.help, k.suspend, k.up, k.down, k.number, k.first, k.last, k.toggle, k.kill, k.more, k.older, k.newer}
}
