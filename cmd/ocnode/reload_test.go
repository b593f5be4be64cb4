package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// What a node says of a configuration that it read again.
const (
	rereadAll   = "configuration reread"
	rereadSome  = "configuration reread; some of what changed can only change with a restart"
	rereadWrong = "the configuration has mistakes and was not taken over; mend them and send SIGHUP again"
	rereadNone  = "there is no configuration file to reread"
	rereadGone  = "the configuration file is gone and nothing was taken over; put it back and send SIGHUP again"
)

// reread is a line of the log about a configuration that was read again.
type reread struct {
	Level, Msg, File, Error string
	Taken, NeedRestart      []string
}

// rereads returns all that p said so far.
func rereads(p *ocnodetest.Process) (all []reread) {
	for text := range strings.Lines(p.Log.String()) {
		var l reread
		known := []string{rereadAll, rereadSome, rereadWrong, rereadNone, rereadGone}
		if json.Unmarshal([]byte(text), &l) == nil && slices.Contains(known, l.Msg) {
			all = append(all, l)
		}
	}
	return all
}

// hangUp sends SIGHUP and returns what the node says to that.
func (n *node) hangUp() reread {
	n.t.Helper()
	before := len(rereads(n.Process))
	n.Signal(syscall.SIGHUP)
	return saysAfter(n.Process, before)
}

// saysAfter waits for the line after the first before lines.
func saysAfter(p *ocnodetest.Process, before int) (l reread) {
	p.Await("it says what came of SIGHUP", func() bool {
		all := rereads(p)
		if len(all) > before {
			l = all[before]
		}
		return len(all) > before
	})
	return l
}

func (l reread) expect(t *testing.T, level, msg string, taken, needRestart []string) {
	t.Helper()
	if l.Level != level || l.Msg != msg || !slices.Equal(l.Taken, taken) || !slices.Equal(l.NeedRestart, needRestart) {
		t.Errorf("it says %+v, want %s %q, taken %q, needRestart %q", l, level, msg, taken, needRestart)
	}
}

func TestSIGHUPTakesOverWhatCanChangeWhileANodeRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, "log:\n  level: info\n")
	n := start(t, dir)
	debugs := func() bool { return strings.Contains(n.Log.String(), `"level":"DEBUG"`) }
	if debugs() {
		t.Fatalf("it logs details at level info:\n%s", n.Log.String())
	}

	n.hangUp().expect(t, "INFO", rereadAll, nil, nil)

	write(t, path, "log:\n  level: debug\nregistry:\n  ttl: 99s\n  refresh: 31s\n")
	said := n.hangUp()
	said.expect(t, "WARN", rereadSome, []string{"log.level"}, []string{"registry.ttl", "registry.refresh"})
	if said.File != "config.yaml" {
		t.Errorf("the file is %q", said.File)
	}
	register(t, newSeed(t), n.Addrs[0])
	n.Await("it logs details", debugs)

	// With mistakes, nothing changes, what is right beside them included.
	write(t, path, "log:\n  level: error\nregistry:\n  tll: 99s\n  refresh: 90s\n")
	said = n.hangUp()
	said.expect(t, "ERROR", rereadWrong, nil, nil)
	for _, want := range []string{"config.yaml:4: registry.tll: unknown key; did you mean registry.ttl?", "config.yaml:5: registry.refresh: 1m30s is not shorter"} {
		if !strings.Contains(said.Error, want) {
			t.Errorf("it does not say %q: %q", want, said.Error)
		}
	}
	write(t, path, "log: {level: [\n")
	if said = n.hangUp(); !strings.Contains(said.Error, "config.yaml:1: not YAML") {
		t.Errorf("it says %+v", said)
	}
	n.expectReady()
	register(t, newSeed(t), n.Addrs[0])

	// A file that is gone for a moment is no wish for the defaults.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if said = n.hangUp(); said.Level != "ERROR" || said.Msg != rereadGone || said.File != "config.yaml" {
		t.Errorf("it says %+v", said)
	}

	// And then a good one again. What waits for a restart still does.
	write(t, path, "log:\n  level: warn\nregistry:\n  ttl: 99s\n")
	n.hangUp().expect(t, "WARN", rereadSome, []string{"log.level"}, []string{"registry.ttl"})
	n.expectReady()
	register(t, newSeed(t), n.Addrs[0])
	n.Signal(syscall.SIGTERM)
	n.ExpectExit(0)
}

func TestSIGHUPWithoutAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir)
	n.hangUp().expect(t, "INFO", rereadNone, nil, nil)

	// One that has come since is read as it would be at a start: below variables and flags.
	write(t, filepath.Join(dir, "config.yaml"), "log: {level: debug}\nhttp: {listen: 127.0.0.1:1}\n")
	n.hangUp().expect(t, "INFO", rereadAll, []string{"log.level"}, nil)
}

// Whoever starts a node and sends SIGHUP at once must not lose it. The pipe holds the
// start up where it reads the configuration.
func TestSIGHUPDuringTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, dir, freePorts, "--config", "pipe.yaml")
	feed := func(text string) {
		t.Helper()
		var w *os.File
		ocnodetest.Eventually(t, "it opens the pipe", func() (open bool) {
			var err error
			w, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0) // an error until it has
			return err == nil
		})
		defer w.Close()
		if text == "" {
			return
		}
		p.Signal(syscall.SIGHUP)
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	feed("registry: {ttl: 99s}\n")
	p.Logs("ready")
	// It heard, and reads again once it runs. An empty file is one, so the TTL changes.
	feed("")
	saysAfter(p, 0).expect(t, "WARN", rereadSome, nil, []string{"registry.ttl"})
	p.Signal(syscall.SIGTERM)
	p.ExpectExit(0)
}

// Signals may come faster than the file is read: what was written before the last of
// them is read in the end.
func TestTheLastOfManySIGHUPsCounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, "")
	n := start(t, dir)
	for range 50 {
		rename(t, path, "registry: {ttl: 99s}\n")
		n.Signal(syscall.SIGHUP)
	}
	rename(t, path, "registry: {refresh: 31s}\n")
	n.Signal(syscall.SIGHUP)
	n.Await("it read the last one", func() bool {
		return slices.ContainsFunc(rereads(n.Process), func(l reread) bool { return slices.Equal(l.NeedRestart, []string{"registry.refresh"}) })
	})
	n.expectReady()
}

// rename writes a file as editors do: nobody ever reads half of it.
func rename(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
