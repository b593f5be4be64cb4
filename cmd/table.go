package cmd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/ports"
)

const (
	// gap is what stands between two columns.
	gap = "   "
	// minCut is the least that is left of a cell which is cut, with its ellipsis.
	minCut = 12
	// wholeAddr is the width of the longest address by number that has a port and no
	// transport over it; a name may be longer.
	wholeAddr = len("/ip6/2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/tcp/65535")
	// stateColumn is coloured by what it says.
	stateColumn = "STATE"
	// addrColumn is cut only where no column of spare is left to drop.
	addrColumn = "ADDR"
)

// spare are the columns that a narrow terminal does without, the first one first: who
// lists wants to know where everyone is, and get tells the rest.
var spare = []string{"VIA", "LAST SEEN", "EXPIRES IN"}

// states are the colours of what stands in stateColumn.
var states = map[string]lipgloss.Style{
	string(ports.StateLive):  display.Good,
	string(ports.StateLate):  display.Warn,
	string(ports.StateStale): display.Bad,
	stateOn:                  display.Good,
	stateOff:                 display.Faint,
}

// table lays rows out in columns, the first row their names.
func table(rows [][]string) string { return lay(rows, nil) }

// list is table, coloured and as wide as the terminal if the output is one: where it
// is too narrow, fit makes it fit, by the column named elastic. It is "" where JSON is
// printed: the library takes 0.1 ms for each row.
func (p *program) list(rows [][]string, elastic string) string {
	if p.output == outputJSON {
		return ""
	}
	rows = printable(rows)
	if w := width(p.out); w > 0 {
		rows = fit(rows, elastic, w)
	}
	if !p.colored() {
		return table(rows)
	}
	return lay(rows, func(row, column int) lipgloss.Style {
		switch {
		case row == 0:
			return display.Strong
		case rows[0][column] == stateColumn:
			return states[rows[row][column]]
		}
		return display.Calm
	})
}

// details lays out one thing, a row for each of its names, coloured as list does.
func (p *program) details(rows [][]string) string {
	rows = printable(rows)
	if !p.colored() {
		return table(rows)
	}
	return lay(rows, func(row, column int) lipgloss.Style {
		switch {
		case column == 0:
			return display.Strong
		case rows[row][0] == stateColumn:
			return states[rows[row][column]]
		}
		return display.Calm
	})
}

// printable quotes the cells that a terminal would take for more than text: whatever
// answers at --api may have written them.
func printable(rows [][]string) [][]string {
	safe := make([][]string, len(rows))
	for i, row := range rows {
		for _, cell := range row {
			if strings.ContainsFunc(cell, func(r rune) bool { return !strconv.IsPrint(r) }) {
				cell = strconv.Quote(cell)
			}
			safe[i] = append(safe[i], cell)
		}
	}
	return safe
}

// lay is rows in columns, each cell in its style if there are styles.
func lay(rows [][]string, style func(row, column int) lipgloss.Style) string {
	return strings.Join(display.Table(rows, gap, style), "\n") + "\n"
}

// fit cuts the cells of one column so that a row takes no more than total cells of
// the terminal, as far as that is to be had. Addresses lose the port that way, so the
// columns that can be spared go before them.
func fit(rows [][]string, elastic string, total int) [][]string {
	column := slices.Index(rows[0], elastic)
	if column < 0 {
		return rows
	}
	has, wants := room(rows, column, total)
	if elastic == addrColumn {
		for _, name := range spare {
			j := slices.Index(rows[0], name)
			if has >= min(wants, wholeAddr) || j < 0 {
				continue
			}
			rows = without(rows, j)
			column = slices.Index(rows[0], elastic)
			has, wants = room(rows, column, total)
		}
	}
	if wants <= has {
		return rows
	}
	cut := make([][]string, len(rows))
	for i, row := range rows {
		cut[i] = slices.Clone(row)
		cut[i][column] = ansi.Truncate(row[column], max(has, minCut), display.Ellipsis)
	}
	return cut
}

// room returns how many of total cells are there for a column, and how many it wants.
func room(rows [][]string, column, total int) (has, wants int) {
	widths := columnWidths(rows)
	has = total - len(gap)*(len(widths)-1)
	for j, w := range widths {
		if j != column {
			has -= w
		}
	}
	return has, widths[column]
}

// without returns rows without a column.
func without(rows [][]string, column int) [][]string {
	kept := make([][]string, len(rows))
	for i, row := range rows {
		kept[i] = slices.Delete(slices.Clone(row), column, column+1)
	}
	return kept
}

func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for j, cell := range row {
			widths[j] = max(widths[j], lipgloss.Width(cell))
		}
	}
	return widths
}

// shorten returns how the output shows a PeerID of a list. To a terminal it is
// 12D3Koo…5T9abc, with as much of the end as tells every one of ids from the others;
// whatever else reads it gets it whole. get takes both.
func (p *program) shorten(ids []ports.PeerID) func(ports.PeerID) string {
	if !terminal(p.out) {
		return func(id ports.PeerID) string { return string(id) }
	}
	tail := display.Telling(ids)
	return func(id ports.PeerID) string { return display.Short(id, tail) }
}

// age says how long something took or takes, as kubectl does: in its largest unit, and
// in the next as long as that tells something.
func age(d time.Duration) string {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	in := func(unit time.Duration) int { return int(d / unit) }
	two := func(unit time.Duration, name string, next time.Duration, nextName string) string {
		if rest := int(d % unit / next); rest > 0 {
			return fmt.Sprintf("%d%s%d%s", in(unit), name, rest, nextName)
		}
		return fmt.Sprintf("%d%s", in(unit), name)
	}
	switch {
	case d < 0: // the clocks of two machines
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", in(time.Second))
	case d < 10*time.Minute:
		return two(time.Minute, "m", time.Second, "s")
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", in(time.Minute))
	case d < 8*time.Hour:
		return two(time.Hour, "h", time.Minute, "m")
	case d < 2*day:
		return fmt.Sprintf("%dh", in(time.Hour))
	case d < 8*day:
		return two(day, "d", time.Hour, "h")
	case d < 2*year:
		return fmt.Sprintf("%dd", in(day))
	case d < 8*year:
		return two(year, "y", day, "d")
	}
	return fmt.Sprintf("%dy", in(year))
}
