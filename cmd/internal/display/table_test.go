package display

import (
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"
)

func TestTableLaysOutColumns(t *testing.T) {
	const bold, green, end = "\x1b[1m", "\x1b[32m", "\x1b[m"
	rows := [][]string{{"NAME", "STATE", "ADDR"}, {"a", "live", "/dns/机器"}, {"indexer", "", ""}}
	for name, tt := range map[string]struct {
		style func(row, column int) lipgloss.Style
		want  []string
	}{
		"as wide as their widest cells, without spaces at the end": {nil, []string{
			"NAME      STATE   ADDR",
			"a         live    /dns/机器",
			"indexer",
		}},
		"each cell in its style, and what pads it in none": {
			func(row, column int) lipgloss.Style {
				switch {
				case row == 0:
					return Strong
				case row == 1 && column == 1:
					return Good
				}
				return Calm
			},
			[]string{
				bold + "NAME" + end + "      " + bold + "STATE" + end + "   " + bold + "ADDR" + end,
				"a         " + green + "live" + end + "    /dns/机器",
				"indexer",
			},
		},
		"as wide as their styles say, with longer cells cut": {
			func(_, column int) lipgloss.Style { return Calm.Width([]int{5, 8, 7}[column]) },
			[]string{
				"NAME    STATE      ADDR",
				"a       live       /dns/…",
				"inde…",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Table(rows, "   ", tt.style)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
