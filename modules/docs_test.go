package modules_test

import (
	"cmp"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
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
	for _, from := range []string{
		"../SECURITY.md", "../README.md", "../CONTRIBUTING.md", "../CHANGELOG.md", "../docs/protocol.md", "../docs/architecture.md",
	} {
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

// rooms are the folders with code, as pages name them.
const rooms = "ports|domain|adapters|modules|cmd"

// read returns a page or a source.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sources returns the files of Go in and under a folder, as seen from the project's root.
func sources(t *testing.T, folder string, tests bool) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", folder), func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" && (tests || !strings.HasSuffix(path, "_test.go")) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// words returns the identifiers of the code, and the words of its strings.
func words(t *testing.T) map[string]bool {
	t.Helper()
	found, word := map[string]bool{}, regexp.MustCompile(`\w+`)
	for _, room := range strings.Split(rooms, "|") {
		for _, path := range sources(t, room, false) {
			text := []byte(read(t, path))
			files := token.NewFileSet()
			var s scanner.Scanner
			s.Init(files.AddFile(path, -1, len(text)), text, nil, 0)
			for _, kind, literal := s.Scan(); kind != token.EOF; _, kind, literal = s.Scan() {
				if kind == token.IDENT || kind == token.STRING {
					for _, w := range word.FindAllString(literal, -1) {
						found[w] = true
					}
				}
			}
		}
	}
	return found
}

// TestTheArchitecturePageNamesWhatThereIs holds docs/architecture.md to the code: each folder and
// file that it names exists, and each word that it sets as code stands in the code.
func TestTheArchitecturePageNamesWhatThereIs(t *testing.T) {
	page := read(t, "../docs/architecture.md")
	named := regexp.MustCompile(`\b(?:`+rooms+`)/[\w/]+(?:\.go)?`).FindAllString(page, -1)
	for _, path := range named {
		if _, err := os.Stat(filepath.Join("..", path)); err != nil {
			t.Errorf("it names %s: %v", path, err)
		}
	}
	prose, known := regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(page, ""), words(t)
	set := regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(prose, -1)
	for _, code := range set {
		if slices.Contains(named, code[1]) {
			continue
		}
		for _, word := range regexp.MustCompile(`\w+`).FindAllString(code[1], -1) {
			if !known[word] {
				t.Errorf("it has `%s`, and the code has no %s", code[1], word)
			}
		}
	}
	if len(named) < 20 || len(set) < 20 {
		t.Errorf("%d paths and %d words of code were read", len(named), len(set))
	}
}

// TestTheArchitecturePageDrawsTheImports holds the picture of docs/architecture.md to the code: it
// has an arrow from one room to another if the first imports the second, and no other arrow.
func TestTheArchitecturePageDrawsTheImports(t *testing.T) {
	_, picture, _ := strings.Cut(read(t, "../docs/architecture.md"), "flowchart LR\n")
	picture, _, _ = strings.Cut(picture, "```")
	paths := map[string]string{}
	for _, box := range regexp.MustCompile(`(\w+)(?:\[([\w/]+)\])?`).FindAllStringSubmatch(regexp.MustCompile(`\|.*?\|`).ReplaceAllString(picture, " "), -1) {
		if paths[box[1]] == "" || box[2] != "" {
			paths[box[1]] = cmp.Or(box[2], box[1])
		}
	}
	var drawn []string
	for _, arrow := range regexp.MustCompile(`(?m)^ *(\w+) -->(?:\|.*?\|)? (\w+)`).FindAllStringSubmatch(picture, -1) {
		drawn = append(drawn, paths[arrow[1]]+" to "+paths[arrow[2]])
	}
	room := func(folder string) (inmost string) {
		for _, path := range paths {
			if strings.HasPrefix(folder+"/", path+"/") && len(path) > len(inmost) {
				inmost = path
			}
		}
		return inmost
	}
	var imported []string
	for _, folder := range strings.Split(rooms, "|") {
		for _, path := range sources(t, folder, false) {
			from := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
			if strings.HasSuffix(from, "test") {
				continue // what is for tests may reach further
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range file.Imports {
				to, own := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
				if own && room(to) != room(from) {
					imported = append(imported, room(from)+" to "+room(to))
				}
			}
		}
	}
	slices.Sort(drawn)
	slices.Sort(imported)
	if imported = slices.Compact(imported); !slices.Equal(drawn, imported) {
		t.Errorf("it draws the arrows\n%s\nand the imports are\n%s", strings.Join(drawn, "\n"), strings.Join(imported, "\n"))
	}
}

// declares reports whether a file of folder, or below it, declares name at its top level.
func declares(t *testing.T, folder, name string) bool {
	t.Helper()
	is := regexp.MustCompile(`(?m)^(?:func|type) (?:` + name + `)\b`)
	return slices.ContainsFunc(sources(t, folder, true), func(path string) bool { return is.MatchString(read(t, path)) })
}

// TestContributingSaysWhatThereIs holds CONTRIBUTING.md to the Makefile and to the tests: its
// commands have something to do, its fixtures are there, and its blocks of Go stand in a test.
func TestContributingSaysWhatThereIs(t *testing.T) {
	page, makefile := read(t, "../CONTRIBUTING.md"), read(t, "../Makefile")
	commands := regexp.MustCompile(`(?m)^ {4,}(make|go test) (.*)$`).FindAllStringSubmatch(page, -1)
	for _, command := range commands {
		line, _, _ := strings.Cut(command[2], " #")
		arguments := strings.Fields(strings.ReplaceAll(line, "'", ""))
		if command[1] == "make" {
			for _, a := range arguments {
				form := `^` + a + `:.*## `
				if variable, _, is := strings.Cut(a, "="); is {
					form = `^` + variable + ` \?= `
				}
				if !regexp.MustCompile(`(?m)` + form).MatchString(makefile) {
					t.Errorf("make %s: the Makefile has no %s", line, a)
				}
			}
			continue
		}
		run := `Test\w+`
		if i := slices.Index(arguments, "-run"); i >= 0 {
			run = strings.Trim(arguments[i+1], "^$")
			if !strings.HasSuffix(arguments[i+1], "$") {
				run += `\w*`
			}
		}
		for _, a := range arguments {
			if folder, is := strings.CutPrefix(a, "./"); is && !declares(t, strings.TrimSuffix(folder, "/..."), run) {
				t.Errorf("go test %s: %s has no such test", line, folder)
			}
		}
	}
	fixtures := regexp.MustCompile("(?m)^\\| (`.+`) \\| `(.+)` \\| ").FindAllStringSubmatch(page, -1)
	for _, row := range fixtures {
		for _, name := range regexp.MustCompile("(\\w+)`").FindAllStringSubmatch(row[1], -1) {
			if !declares(t, row[2], name[1]) {
				t.Errorf("it tells of the fixture %s, and %s has no %s", row[1], row[2], name[1])
			}
		}
	}
	var tests strings.Builder
	for _, path := range sources(t, "domain", true) {
		tests.WriteString(read(t, path))
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(page, -1)
	for _, block := range blocks {
		if !strings.Contains(tests.String(), block[1]) {
			t.Errorf("this block stands in no test of domain:\n%s", block[1])
		}
	}
	if len(commands) < 10 || len(fixtures) < 15 || len(blocks) == 0 {
		t.Errorf("%d commands, %d fixtures and %d blocks were read", len(commands), len(fixtures), len(blocks))
	}
}

// TestTheHostedCIRunsWhatAnyMachineRuns is about a change that passes here and fails there, or the
// other way round.
func TestTheHostedCIRunsWhatAnyMachineRuns(t *testing.T) {
	var ci struct {
		Permissions map[string]string
		Jobs        map[string]struct {
			Timeout int `yaml:"timeout-minutes"`
			Steps   []struct{ Uses, Run string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "../.github/workflows/ci.yml")), &ci); err != nil {
		t.Fatal(err)
	}
	var runs []string
	for name, job := range ci.Jobs {
		if job.Timeout == 0 {
			t.Errorf("the job %s has no time-out", name)
		}
		for _, step := range job.Steps {
			if step.Run != "" {
				runs = append(runs, step.Run)
			} else if !regexp.MustCompile(`^actions/[\w-]+@v\d+$`).MatchString(step.Uses) {
				t.Errorf("%q is no action of GitHub's own at a major version", step.Uses)
			}
		}
	}
	if !slices.Equal(runs, []string{".ci/run"}) || len(ci.Permissions) != 1 || ci.Permissions["contents"] != "read" {
		t.Errorf("it runs %q with the permissions %v, want .ci/run alone, to read contents", runs, ci.Permissions)
	}
}
