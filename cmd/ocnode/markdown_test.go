package main_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// block is a block of code of a Markdown file.
type block struct {
	heading string // that it stands under, without the #
	kind    string // the fence's word; "" of an indented block
	text    string
	line    int
}

// blocks returns the fenced and the indented blocks of code in a Markdown file.
func blocks(t *testing.T, path string) (found []block) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	heading, fenced := "", false
	var lines []string
	var b block
	end := func() {
		if text := strings.TrimRight(strings.Join(lines, "\n"), "\n"); text != "" {
			b.text = text + "\n"
			found = append(found, b)
		}
		lines = nil
	}
	previous := ""
	for i, line := range strings.Split(string(text), "\n") {
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "```") && fenced:
			fenced = false
			end()
		case fenced:
			lines = append(lines, line)
		case strings.HasPrefix(line, "```"):
			end()
			fenced = true
			b = block{heading, strings.TrimPrefix(line, "```"), "", i + 1}
		case indented && (lines != nil || previous == ""):
			if lines == nil {
				b = block{heading, "", "", i + 1}
			}
			lines = append(lines, code)
		case line == "" && lines != nil:
			lines = append(lines, "") // it may go on after a blank line
		default:
			end()
			if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
				heading = title
			}
		}
		previous = line
	}
	end()
	if fenced {
		t.Errorf("%s: a block that does not end", path)
	}
	return found
}

// commands returns the commands of a block: its lines, joined where one ends in a
// backslash, without their comments.
func (b block) commands() (list []string) {
	for _, line := range strings.Split(strings.ReplaceAll(b.text, "\\\n", "\\\x00"), "\n") {
		line, _, _ = strings.Cut(line, " #")
		if line = strings.TrimSpace(strings.ReplaceAll(line, "\x00", "\n")); line != "" {
			list = append(list, line)
		}
	}
	return list
}

// shell starts a command as it is written, in a shell that finds ocnode.
func shell(t *testing.T, dir string, environ []string, command string) *ocnodetest.Process {
	t.Helper()
	// exec makes the process that is signalled ocnode itself.
	environ = append([]string{"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH")}, environ...)
	return ocnodetest.Start(t, ocnodetest.Command("/bin/sh", dir, environ, "-euc", "exec "+command))
}

func TestBlocksOfMarkdownAreFound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.md")
	write(t, path, "# One\n\n    make demo    # see\n\n    a \\\n      b\n\ntext\n    no code\n\n## Two\n```sh\n    x\n\n#y\n```\n    z\n")
	got := blocks(t, path)
	want := []block{{"One", "", "make demo    # see\n\na \\\n  b\n", 3}, {"Two", "sh", "    x\n\n#y\n", 12}}
	if !slices.Equal(got, want) {
		t.Errorf("found %+v, want %+v", got, want)
	}
	if got, want := got[0].commands(), []string{"make demo", "a \\\n  b"}; !slices.Equal(got, want) {
		t.Errorf("its commands are %q, want %q", got, want)
	}
}
