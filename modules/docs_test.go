package modules_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAdaptersPageShowsWhatStandsInTheSource holds docs/adapters.md to the code that it
// walks through: each of its blocks of Go stands there to the letter. What it shows of a
// terminal is held by the tests of docs/boltstore.
func TestAdaptersPageShowsWhatStandsInTheSource(t *testing.T) {
	page, err := os.ReadFile("../docs/adapters.md")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("../docs/boltstore/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, path := range append(sources, "extend_test.go") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(page, -1)
	for _, block := range blocks {
		if !strings.Contains(code.String(), string(block[1])) {
			t.Errorf("this block stands in none of %s and extend_test.go:\n%s", sources, block[1])
		}
	}
	if fences := strings.Count(string(page), "```go"); len(blocks) != fences || fences < 5 {
		t.Errorf("of %d blocks of Go, %d were read", fences, len(blocks))
	}
	for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllSubmatch(page, -1) {
		if path := string(link[1]); !strings.Contains(path, "://") {
			if _, err := os.Stat(filepath.Join("../docs", path)); err != nil {
				t.Errorf("a link leads nowhere: %v", err)
			}
		}
	}
}

// slug returns what a heading is linked to by.
func slug(heading string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// TestLinksBetweenPagesLeadSomewhere is about those that others build on: what is specified
// in one place is referred to from others.
func TestLinksBetweenPagesLeadSomewhere(t *testing.T) {
	headings := func(path string) map[string]bool {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
		found := map[string]bool{}
		for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllSubmatch(page, -1) {
			found[slug(string(heading[1]))] = true
		}
		return found
	}
	links := 0
	for _, from := range []string{"../SECURITY.md", "../README.md", "../docs/protocol.md"} {
		page, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllSubmatch(page, -1) {
			path, part, _ := strings.Cut(string(link[1]), "#")
			if strings.Contains(path, "://") {
				continue
			}
			links++
			to := from
			if path != "" {
				to = filepath.Join(filepath.Dir(from), path)
			}
			if part != "" && !headings(to)[part] {
				t.Errorf("%s links to %s of %s, and no heading is that", from, part, to)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: a link leads nowhere: %v", from, err)
			}
		}
	}
	if links < 20 {
		t.Errorf("%d links were read", links)
	}
}
