package cmd

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// terminal reports whether w is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many cells a line of w has, 0 if it is no terminal or does not say.
func width(w io.Writer) int {
	if !terminal(w) {
		return 0
	}
	columns, _, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// getenv returns the last value of a variable of the program's environment, "" if it
// is not set.
func (p *program) getenv(name string) string {
	value := ""
	for _, variable := range p.environ {
		if v, ok := strings.CutPrefix(variable, name+"="); ok {
			value = v
		}
	}
	return value
}

// colored reports whether what goes to standard output may be coloured: it is a
// terminal that can, and neither --no-color nor NO_COLOR (https://no-color.org) is set.
func (p *program) colored() bool {
	return terminal(p.out) && !p.noColor && p.getenv("NO_COLOR") == "" && p.getenv("TERM") != "dumb"
}
