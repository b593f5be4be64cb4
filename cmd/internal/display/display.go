// Package display writes for people: in the colours of their terminal, short, and without
// anything that moves a cursor.
package display

import (
	"strconv"

	"charm.land/lipgloss/v2"
)

// The terminal's own colours, since its owner chose them to be read.
var (
	Calm   = lipgloss.NewStyle()
	Strong = Calm.Bold(true)
	Faint  = Calm.Faint(true)
	Good   = Calm.Foreground(lipgloss.Green)
	Warn   = Calm.Foreground(lipgloss.Yellow)
	Bad    = Calm.Foreground(lipgloss.Red)
)

// Ellipsis stands for the part that is left out.
const Ellipsis = "…"

// Plain makes an indexer's own words harmless to a terminal and to a table.
func Plain(words string) string {
	if quoted := strconv.Quote(words); quoted[1:len(quoted)-1] != words {
		return quoted
	}
	return words
}
