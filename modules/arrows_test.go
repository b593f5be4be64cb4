package modules_test

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/opencloud/ocnode"

// breach returns what is wrong with a file in folder that imports path, "" if
// nothing is. Both are as seen from the project's root, a path outside it whole.
func breach(folder, path string) string {
	in := func(p string, folders ...string) bool {
		for _, f := range folders {
			if p == f || strings.HasPrefix(p, f+"/") {
				return true
			}
		}
		return false
	}
	own := in(path, module)
	path = strings.TrimPrefix(path, module+"/")
	standard := !own && !strings.Contains(strings.Split(path, "/")[0], ".")
	forTests := func(p string) bool { return strings.HasSuffix(p, "test") }
	room := func(p string) string { // adapters/stream of adapters/stream/x
		return strings.Join(append(strings.Split(p, "/"), "")[:2], "/")
	}

	switch {
	case !own && in(path, "go.uber.org/fx", "go.uber.org/dig") && !in(folder, "modules", "cmd"):
		return "only modules and cmd know fx"
	case !own && in(path, "github.com/knadh/koanf") && !in(folder, "modules/config"):
		return "only modules/config knows koanf"
	case own && forTests(path) && !forTests(folder):
		return "tests alone import what is for tests"
	}
	switch {
	case in(folder, "ports"):
		if !standard && !(in(folder, "ports/porttest") && path == "ports") {
			return "ports import the standard library alone"
		}
	case in(folder, "domain"):
		if in(path, "net", "os", "log", "syscall") {
			return "the domain is pure"
		}
		inner := own && in(path, "domain/internal") && !in(folder, "domain/internal")
		rules := own && path == "domain" && in(folder, "domain/client")
		if !standard && path != "ports" && !inner && !rules {
			return "the domain imports the standard library, ports and domain/internal; domain/client imports the domain as well"
		}
	case in(folder, "adapters"):
		fixture := forTests(folder) && path == "ports/porttest"
		if own && path != "ports" && !fixture && !in(path, "adapters/internal") && room(path) != room(folder) {
			return "an adapter imports ports and adapters/internal"
		}
	case in(folder, "modules/config"):
		if own {
			return "the loader knows nothing of what is configured"
		}
	case in(folder, "modules"):
		if own && (!in(path, "modules", "domain", "ports", "adapters") || in(path, "domain/internal", "adapters/internal")) {
			return "modules import what they compose"
		}
	case in(folder, "cmd/internal"):
		if own && path != "ports" {
			return "packages that commands share import ports alone"
		}
	case in(folder, "cmd/demo"):
		if own && !in(path, "cmd/internal", "modules", "ports") {
			return "the demo imports modules, and knows no command"
		}
	case in(folder, "cmd/ocnodetest"):
		if own && !in(path, "ports") {
			return "the harness knows a program as a process alone"
		}
	case in(folder, "cmd"):
		if own && !in(path, "cmd", "modules", "ports", "adapters/httpapi") {
			return "cmd imports modules, and the client of HTTP"
		}
	default:
		return "code lives in ports, domain, adapters, modules and cmd"
	}
	return ""
}

func TestTheArrowsPointOneWay(t *testing.T) {
	const root = ".."
	read := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && d.IsDir() && path != root {
			return filepath.SkipDir // a program of its own, to which the compiler shows no internal package
		}
		if strings.HasSuffix(path, "_test.go") {
			source, err := os.ReadFile(path)
			if bytes.Contains(source, []byte("synctest"+".Test(")) {
				t.Errorf("%s calls synctest.Test: porttest.FakeTime says why it must not", path)
			}
			return err
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(filepath.Dir(path), "/hosttest") {
			return nil // tests, and what only they import, may reach further
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		read++
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := breach(filepath.ToSlash(filepath.Dir(rel)), imported); why != "" {
				t.Errorf("%s imports %s: %s", rel, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 40 {
		t.Errorf("only %d files were read", read)
	}
}

func TestBreachesAreSeen(t *testing.T) {
	own := func(p string) string { return module + "/" + p }
	for _, c := range []struct {
		folder, path string
		breach       bool
	}{
		{"domain", "time", false},
		{"domain", own("ports"), false},
		{"domain", own("domain/internal/lookup"), false},
		{"domain/internal/lookup", own("ports"), false},
		{"domain/internal/lookup", own("domain"), true},
		{"domain/internal/lookup", own("adapters/memory"), true},
		{"domain/internal/lookup", "net", true},
		{"domain", "net", true},
		{"domain", "net/http", true},
		{"domain", "os", true},
		{"domain", "log/slog", true},
		{"domain", own("adapters/memory"), true},
		{"domain", own("ports/porttest"), true},
		{"domain", "github.com/libp2p/go-libp2p", true},
		{"domain", own("domain/client"), true},
		{"domain/client", "time", false},
		{"domain/client", "log/slog", true},
		{"domain/client", own("ports"), false},
		{"domain/client", own("domain"), false},
		{"domain/client", own("domain/internal/lookup"), false},
		{"domain/client", own("ports/porttest"), true},
		{"domain/client", own("adapters/memory"), true},
		{"domain/client", own("modules"), true},
		{"domain/client", "github.com/libp2p/go-libp2p", true},
		{"domain/internal/lookup", own("domain/client"), true},
		{"domain/internal/lookup", own("domain/internal/other"), true},
		{"adapters/stream", own("domain/client"), true},
		{"cmd/ocnode", own("domain/client"), true},
		{"ports", "context", false},
		{"ports", own("domain"), true},
		{"ports/porttest", own("ports"), false},
		{"ports/porttest", "pgregory.net/rapid", true},
		{"adapters/stream", own("ports"), false},
		{"adapters/stream", own("adapters/internal/wire"), false},
		{"adapters/stream", "github.com/libp2p/go-libp2p/core/host", false},
		{"adapters/stream", own("adapters/kaddht"), true},
		{"adapters/stream", own("domain"), true},
		{"adapters/stream", own("modules"), true},
		{"adapters/stream", "go.uber.org/fx", true},
		{"adapters/internal/wire", own("ports"), false},
		{"adapters/proof", own("ports/porttest"), true},
		{"adapters/proof/prooftest", own("ports/porttest"), false},
		{"adapters/proof/prooftest", own("adapters/memory"), true},
		{"adapters/internal/wire", own("adapters/stream"), true},
		{"modules", own("adapters/stream"), false},
		{"adapters/stream", own("domain/internal/lookup"), true},
		{"modules", own("domain"), false},
		{"modules", own("domain/internal/lookup"), true},
		{"modules", own("cmd/ocnode"), true},
		{"modules/config", own("ports"), true},
		{"cmd", own("cmd/demo"), false},
		{"cmd", own("cmd/internal/display"), false},
		{"cmd/demo", own("modules/config"), false},
		{"cmd/demo", own("cmd/internal/display"), false},
		{"cmd/demo", own("cmd"), true},
		{"cmd/demo", own("adapters/httpapi"), true},
		{"cmd/internal/display", own("ports"), false},
		{"cmd/internal/display", own("modules"), true},
		{"cmd/internal/display", own("cmd/demo"), true},
		{"cmd/ocnode", own("modules/config"), false},
		{"cmd/ocnode", own("domain"), true},
		{"cmd/ocnode", own("cmd/ocnodetest"), true},
		{"cmd/ocnodetest", own("ports/porttest"), false},
		{"cmd/ocnodetest", own("modules"), true},
		{"modules", own("ports/porttest"), true},
		{"cmd/ocnode", own("adapters/stream"), true},
		{"util", "fmt", true},
	} {
		if got := breach(c.folder, c.path); (got != "") != c.breach {
			t.Errorf("%s", fmt.Sprintf("%s imports %s: %q", c.folder, c.path, got))
		}
	}
}
