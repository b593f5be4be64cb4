package display

import (
	"strings"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// Table lays rows out in columns with a gap between two of them, and returns their lines
// without spaces at the end. A column is as wide as its widest cell, unless style gives it
// a width: then longer cells are cut. style may be nil.
func Table(rows [][]string, gap string, style func(row, column int) lipgloss.Style) []string {
	t := table.New().Wrap(false).StyleFunc(style).Rows(rows...).
		Border(lipgloss.Border{Left: gap}). // which stands between columns, too
		BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).BorderHeader(false)
	lines := strings.Split(t.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return lines
}
