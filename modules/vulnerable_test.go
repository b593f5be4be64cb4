package modules_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mended has, of modules that go-libp2p asks for in versions with a panic that a stranger can
// reach, the first without it.
var mended = map[string]string{
	"github.com/pion/stun": "v3.1.5", // GO-2026-6163
	"github.com/pion/dtls": "v3.1.4", // GO-2026-6165
}

var versionForm = regexp.MustCompile(`^v(\d+)\.(\d+)\.(\d+)(-\S+)?`)

// older compares two versions as modules have them.
func older(t *testing.T, a, b string) bool {
	t.Helper()
	parts := func(version string) (numbers []int) {
		m := versionForm.FindStringSubmatch(version)
		if m == nil {
			t.Fatalf("%q is no version", version)
		}
		for _, text := range m[1:4] {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, n)
		}
		if m[4] != "" {
			return append(numbers, 0) // what comes before a release is older than it
		}
		return append(numbers, 1)
	}
	return slices.Compare(parts(a), parts(b)) < 0
}

// vulnerable returns which lines of go list -m all are versions with a known weakness, and how
// many of the modules that have one are there in any version.
func vulnerable(t *testing.T, list string) (found []string, looked int) {
	t.Helper()
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue // this module itself
		}
		// The major version is part of the path, and of the version too. What replaces a module stands last.
		path, _, _ := strings.Cut(fields[0], "/v")
		first, ok := mended[path]
		if !ok {
			continue
		}
		if looked++; older(t, fields[len(fields)-1], first) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found, looked
}

func TestNoModuleIsKnownToBeVulnerable(t *testing.T) {
	list, err := exec.Command("go", "list", "-m", "all").Output()
	if err != nil {
		t.Fatalf("go list -m all: %v", err)
	}
	found, looked := vulnerable(t, string(list))
	if len(found) > 0 {
		t.Errorf("require later versions than %q in go.mod: %v have no such weakness", found, mended)
	}
	t.Logf("%d of %d modules to look at are in go list -m all", looked, len(mended))
}

func TestVulnerableVersionsAreFound(t *testing.T) {
	const stun, dtls = "github.com/pion/stun/v3 ", "github.com/pion/dtls/v3 "
	for list, want := range map[string]int{
		"github.com/opencloud/ocnode\n" + stun + "v3.1.5\n" + dtls + "v3.1.4\n": 0,
		stun + "v3.1.10\n" + dtls + "v3.2.0\n":                                  0,
		stun + "v3.1.1\n" + dtls + "v3.1.2\n":                                   2,
		stun + "v3.1.4\n":                                                       1,
		stun + "v3.1.5-0.20260101000000-0123456789ab\n":                         1,
		"github.com/pion/stun v0.6.1\n" + "github.com/pion/dtls/v2 v2.2.12\n":   2,
		stun + "v3.1.5 => github.com/pion/stun/v3 v3.1.1\n":                     1,
		"github.com/pion/stunning v1.0.0\ngithub.com/pion/ice/v4 v4.0.10\n":     0,
	} {
		if found, _ := vulnerable(t, list); len(found) != want {
			t.Errorf("in\n%sfound are %q, want %d", list, found, want)
		}
	}
}
