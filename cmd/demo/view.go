package demo

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/ports"
)

// chosen is the line of the selected node.
var chosen = display.Calm.Reverse(true)

var moods = map[mood]lipgloss.Style{plainly: display.Calm, gladly: display.Good, sadly: display.Bad}

var marks = map[mark]struct {
	text  string
	style lipgloss.Style
	means string
}{
	markLease: {"●", display.Good, "lease granted"}, markHeard: {"○", display.Good, "heard of"},
	markNone: {"·", display.Faint, "not listed"}, markOff: {"×", display.Bad, "native stopped"},
}

// layout is how many lines each part of the screen gets. A small screen gives up what
// tells least first.
type layout struct {
	title, heading, rows, gap, detail, legend, events, help int
}

// maxDetail is how many lines the selected node gets at most: its HTTP address, and its
// own on a screen of half the usual width. A stranger's may be longer.
const maxDetail = 4

// maxKeyColumns is in how many columns ? shows the keys at most: then each has those of
// one kind.
const maxKeyColumns = 4

// fewEvents is how many lines the events get at least, if the screen has as many to
// spare: a look-up of each of some natives.
const fewEvents = 6

func (m *screen) layout() layout {
	l := layout{rows: 1, heading: 1, help: 1}
	height := m.height // without what ? takes
	if m.help.ShowAll {
		l.help = max(1, min(lipgloss.Height(m.keys()), m.height-3))
		height -= l.help - 1
	}
	if m.height < 5 {
		l.help = 0
	}
	if m.height < 3 {
		l.heading = 0
	}
	if height >= 7 {
		l.title = 1
	}
	if height >= 10 {
		l.legend = 1
	}
	if height >= 16 {
		l.detail = 1
	}
	if m.height >= 24 {
		for _, r := range m.snap.rows { // all, so that selecting one moves nothing
			l.detail = max(l.detail, min(len(m.details(r)), maxDetail))
		}
	}
	if m.height >= 28 {
		l.gap = 1
	}
	left := m.height - l.title - l.heading - l.gap - l.detail - l.legend - l.help
	l.rows = max(1, min(len(m.snap.rows), left-min(fewEvents, left/2)))
	l.events = max(0, left-l.rows)
	return l
}

// View draws the screen.
func (m *screen) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	return v
}

func (m *screen) draw() string {
	if m.width == 0 || m.height == 0 {
		return "" // the terminal has not told its size yet
	}
	l := m.layout()
	// The rows are shown by pages, so that moving within one moves nothing else.
	first := m.at / l.rows * l.rows
	first = max(0, min(first, len(m.snap.rows)-l.rows))
	last := min(first+l.rows, len(m.snap.rows))

	var lines []string
	if l.title > 0 {
		lines = append(lines, m.title(first, last))
	}
	table := m.table(m.snap.rows[first:last])
	if l.heading > 0 {
		lines = append(lines, display.Strong.Render(table[0]))
	}
	for i, line := range table[1:] {
		if first+i == m.at {
			line = chosen.Render(pad(">"+strings.TrimPrefix(ansi.Strip(line), " "), m.width))
		}
		lines = append(lines, line)
	}
	for range l.rows - (last - first) {
		lines = append(lines, "")
	}
	for range l.gap {
		lines = append(lines, "")
	}
	lines = append(lines, m.detail(l.detail)...)
	if l.legend > 0 {
		lines = append(lines, m.legend())
	}
	lines = append(lines, m.events(l.events)...)
	if l.help > 0 {
		lines = append(lines, strings.Split(m.keys(), "\n")[:l.help]...)
	}
	lines = lines[:min(len(lines), m.height)]
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, display.Ellipsis)
	}
	return strings.Join(lines, "\n")
}

// title says how the whole network is, and which rows of it are shown.
func (m *screen) title(first, last int) string {
	natives, indexers := 0, 0
	for _, r := range m.snap.rows {
		switch {
		case r.role == roleNative && r.running:
			natives++
		case r.role != roleNative && r.state != "":
			indexers++
		}
	}
	left := display.Strong.Render("ocnode demo") + fmt.Sprintf("  %d of %d natives up, %d live", natives, m.snap.natives, indexers)
	right := clock(m.snap.at)
	if m.length > 0 {
		right += " of " + clock(m.length)
	}
	if shown := last - first; shown < len(m.snap.rows) {
		right = fmt.Sprintf("rows %d-%d of %d  ", first+1, last, len(m.snap.rows)) + right
	}
	if gap := m.width - lipgloss.Width(left) - lipgloss.Width(right); gap > 0 {
		return left + strings.Repeat(" ", gap) + right
	}
	return left
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// detail is what the table has no room for, of the selected node. What n lines have no
// room for goes on past the end of the last.
func (m *screen) detail(n int) []string {
	lines := make([]string, n)
	if n == 0 || len(m.snap.rows) == 0 {
		return lines
	}
	details := m.details(m.snap.rows[m.at])
	if more := details[min(n, len(details)):]; len(more) > 0 {
		details[n-1] += "  " + strings.Join(more, "")
	}
	for i, line := range details[:min(n, len(details))] {
		lines[i] = display.Faint.Render(line)
	}
	return lines
}

// details says where a node can be reached: the address of its HTTP, if it has one, then
// its own, over as many lines as that takes.
func (m *screen) details(r row) []string {
	if r.id == "" {
		return []string{r.name + " has not started yet"}
	}
	var addrs []string
	if r.http != "" {
		addrs = append(addrs, "http://"+r.http)
	}
	if len(r.addrs) > 0 {
		addr := display.Plain(r.addrs[0])
		if !strings.Contains(addr, "/p2p/") {
			addr += "/p2p/" + string(r.id)
		}
		addrs = append(addrs, strings.Split(ansi.Wrap(addr, m.width-lipgloss.Width(r.name)-len(between), "/"), "\n")...)
	}
	lead := r.name
	for i, addr := range addrs {
		addrs[i] = lead + between + addr
		lead = strings.Repeat(" ", lipgloss.Width(r.name))
	}
	if len(addrs) == 0 {
		return []string{r.name}
	}
	return addrs
}

// legend explains the marks, and says how far back the events are scrolled.
func (m *screen) legend() string {
	var parts []string
	for _, k := range []mark{markLease, markHeard, markNone, markOff} {
		parts = append(parts, marks[k].style.Render(marks[k].text)+" "+marks[k].means)
	}
	if m.back > 0 {
		parts = append([]string{fmt.Sprintf("%d newer events", m.back)}, parts...)
	}
	return strings.Join(parts, "   ")
}

// events returns the latest happenings, or what they were before back others.
func (m *screen) events(n int) []string {
	end := len(m.told) - m.back
	lines := make([]string, 0, n)
	for _, h := range m.told[max(0, end-n):max(0, end)] {
		lines = append(lines, moods[h.mood].Render(h.String()))
	}
	for len(lines) < n {
		lines = append(lines, "")
	}
	return lines
}

// keys says what the keys are for: some of them in a line, or all in as many columns as
// fit.
func (m *screen) keys() string {
	if !m.help.ShowAll {
		m.help.SetWidth(m.width)
		return m.help.ShortHelpView(bindings.inLine())
	}
	m.help.SetWidth(0)
	all := bindings.all()
	for columns := maxKeyColumns; ; columns-- {
		rows := (len(all) + columns - 1) / columns
		text := m.help.FullHelpView(slices.Collect(slices.Chunk(all, rows)))
		if columns == 1 || lipgloss.Width(text) <= m.width {
			return text
		}
	}
}

// column is one column of the table.
type column struct {
	heading string
	width   int
	cell    func(row) string // styled, and at most as wide
}

// The widths of what does not change.
const (
	roleWidth   = len(roleStranger)
	stateWidth  = len("stopping")
	timeWidth   = len("4.0s")
	peerIDWidth = len("12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF")
)

// table returns the line of the headings, and one for each of rows.
func (m *screen) table(rows []row) []string {
	columns := m.columns()
	cells := make([][]string, 1+len(rows))
	for _, c := range columns {
		cells[0] = append(cells[0], c.heading)
		for i, r := range rows {
			cells[i+1] = append(cells[i+1], c.cell(r))
		}
	}
	return display.Table(cells, between, func(_, i int) lipgloss.Style { return display.Calm.Width(columns[i].width) })
}

// columns returns those that fit: a narrow screen loses the PeerID, then part of the
// bar, the names of the natives but for their numbers, the role, and all of the bar.
func (m *screen) columns() []column {
	const longBar, shortBar = 20, 10
	for _, f := range []struct {
		peerID, named, role bool
		bar                 int
	}{
		{true, true, true, longBar}, {true, true, true, shortBar}, {false, true, true, longBar}, {false, true, true, shortBar},
		{false, false, true, shortBar}, {false, false, false, shortBar},
	} {
		if c := m.tableOf(f.peerID, f.named, f.role, f.bar); tableWidth(c) <= m.width {
			return c
		}
	}
	return m.tableOf(false, false, false, 0)
}

func (m *screen) tableOf(peerID, named, role bool, bar int) []column {
	names := len("NODE")
	for _, r := range m.snap.rows {
		names = max(names, lipgloss.Width(r.name))
	}
	columns := []column{{" NODE", names + 1, func(r row) string { return " " + r.name }}}
	if role {
		columns = append(columns, column{"ROLE", roleWidth, func(r row) string { return display.Faint.Render(r.role) }})
	}
	columns = append(columns,
		column{"STATE", stateWidth, func(r row) string { text, style := m.state(r); return style.Render(text) }},
		ttlColumn(bar), m.seenColumn(named))
	if peerID {
		columns = append(columns, column{"PEER ID", peerIDWidth, func(r row) string { return display.Faint.Render(string(r.id)) }})
	}
	return columns
}

// state says in a word how a node is: what the natives say of an indexer, if they
// know it.
func (m *screen) state(r row) (string, lipgloss.Style) {
	starts, pending := m.pending[r.name]
	switch {
	case pending && starts:
		return "starting", display.Warn
	case pending:
		return "stopping", display.Warn
	case r.id == "":
		return "waiting", display.Faint
	case r.role == roleNative && r.running:
		return "up", display.Good
	case !r.running && !r.gone && r.id != "" && (r.role == roleNative || r.state != ""):
		return "killed", display.Bad
	case r.role == roleNative, !r.running && (r.state != "" || !r.known || !slices.Contains(r.seen, markNone)):
		return "stopped", display.Bad // or no native that runs can tell that its lease has ended
	case r.running && r.state == "":
		return "unlisted", display.Warn
	case r.state == "" && r.gone:
		return "left", display.Bad
	case r.state == "":
		return "expired", display.Bad
	case r.state == ports.StateLate:
		return string(r.state), display.Warn
	case r.state == ports.StateStale:
		return string(r.state), display.Bad
	}
	return string(r.state), display.Good
}

// ttlColumn shows how much is left of an entry's TTL, and how many entries a native has.
func ttlColumn(bar int) column {
	full := max(timeWidth, len("50 live"))
	if bar > 0 {
		full = bar + 1 + timeWidth
	}
	return column{"TTL", full, func(r row) string {
		switch {
		case r.role == roleNative && !r.running, r.role != roleNative && r.state == "":
			return ""
		case r.role == roleNative:
			return strconv.Itoa(r.live) + " live"
		}
		left := fmt.Sprintf("%*.1fs", timeWidth-1, max(0, r.left).Seconds())
		if bar == 0 {
			return left
		}
		style := display.Good
		if r.state == ports.StateLate {
			style = display.Warn
		}
		filled := max(0, min(bar, int(math.Ceil(float64(bar)*r.left.Seconds()/ttl.Seconds()))))
		return style.Render(strings.Repeat("█", filled)) + display.Faint.Render(strings.Repeat("░", bar-filled)) + " " + left
	}}
}

// seenColumn has a mark for each native, headed by its name or the end of its number.
func (m *screen) seenColumn(named bool) column {
	heading, gap := "", 0
	for i := range m.snap.natives {
		if named {
			heading += fmt.Sprintf("N%d ", i+1)
			gap = 2
		} else {
			heading += strconv.Itoa((i + 1) % 10)
		}
	}
	heading = strings.TrimRight(heading, " ")
	return column{heading, lipgloss.Width(heading), func(r row) string {
		var b strings.Builder
		for i, seen := range r.seen {
			b.WriteString(marks[seen].style.Render(marks[seen].text))
			if i+1 < len(r.seen) {
				b.WriteString(strings.Repeat(" ", gap))
			}
		}
		return b.String()
	}}
}

// between stands between two columns.
const between = "  "

func tableWidth(columns []column) int {
	sum := len(between) * (len(columns) - 1)
	for _, c := range columns {
		sum += c.width
	}
	return sum
}

// pad makes text exactly that wide.
func pad(text string, width int) string {
	text = ansi.Truncate(text, width, display.Ellipsis)
	return text + strings.Repeat(" ", width-lipgloss.Width(text))
}
