package modules_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFiguresRunWhatIsScaled is about a test that is smaller under the race detector: if make
// figures does not run it, nobody runs it in full.
func TestFiguresRunWhatIsScaled(t *testing.T) {
	_, recipe, _ := strings.Cut(read(t, "../Makefile"), "\nfigures: ")
	recipe, _, _ = strings.Cut(recipe, "\n\n")
	commands := regexp.MustCompile(`(?m)^\t\$\(GO\) test .*-run '(.+?)'(.*)$`).FindAllStringSubmatch(recipe, -1)
	runs := func(folder, test string) bool {
		for _, c := range commands {
			for _, a := range strings.Fields(c[2]) {
				root, below := strings.CutSuffix(strings.TrimPrefix(a, "./"), "/...")
				if strings.HasPrefix(a, "./") && (folder == root || below && strings.HasPrefix(folder, root+"/")) && regexp.MustCompile(c[1]).MatchString(test) {
					return true
				}
			}
		}
		return false
	}
	test, scaled := regexp.MustCompile(`(?ms)^func (Test\w+)\(.*?^}$`), regexp.MustCompile(`\b(porttest\.Scale|prooftest\.(Brief|Attacks)|fewerChecks)\(`)
	found := 0
	for _, room := range []string{"adapters", "cmd", "domain", "modules", "ports"} {
		for _, path := range sources(t, room, true) {
			folder := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), ".."+string(filepath.Separator)))
			for _, f := range test.FindAllStringSubmatch(read(t, path), -1) {
				if !scaled.MatchString(f[0]) {
					continue
				}
				if found++; !runs(folder, f[1]) {
					t.Errorf("%s: make figures does not run %s of %s", path, f[1], folder)
				}
			}
		}
	}
	if len(commands) < 4 || found < 15 {
		t.Errorf("%d commands and %d tests that are scaled were read", len(commands), found)
	}
}
