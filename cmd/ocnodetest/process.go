// Package ocnodetest runs programs as processes of a test: ocnode, and whatever else is built
// from its packages.
//
// A process ends with the test that started it, and what it wrote is in the log of a test that
// fails. A wait ends as soon as the process can no longer do what is waited for.
package ocnodetest

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

// Patience bounds whatever a test waits for; only a failure takes so long.
const Patience = porttest.Patience

// Process is a program that runs, or has ended. One goroutine at a time waits for it.
type Process struct {
	Cmd *exec.Cmd
	// Out and Log are what it wrote to standard output and to standard error, unless the command
	// says where that goes.
	Out, Log Output

	t     testing.TB
	ended chan struct{} // closed once it has ended and was waited for
}

// Command returns a command that runs the program at path in dir, with nothing of this
// process's environment.
func Command(path, dir string, environ []string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = dir, Environ(dir, environ...)
	return cmd
}

// Environ returns the environment of a process whose home is dir.
func Environ(dir string, more ...string) []string {
	// The race detector would wait a second at every exit.
	return append([]string{"HOME=" + dir, "GORACE=atexit_sleep_ms=0"}, more...)
}

// Start starts a command. It is killed at the end of the test, if it has not ended by then, and
// fails the test if it had a race or a panic.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, t: t, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.Out
	}
	kept := cmd.Stderr == nil
	if kept {
		cmd.Stderr = &p.Log
	}
	watchLateness()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // ProcessState has it
	}()
	t.Cleanup(func() {
		p.Kill()
		if log := p.Log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
			t.Errorf("%s: a race or a panic:\n%s", cmd, log)
		}
		if kept && t.Failed() {
			t.Logf("%s\n%s%s", cmd, p.Out.String(), p.Log.String())
		}
	})
	return p
}

// Kill is kill -9, and waits for the end.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill() // it may have ended already
	<-p.ended
}

// Signal sends a signal, or fails the test.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// HasEnded reports whether the process has ended, upon which Out and Log are whole.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Wait waits for the end, for no longer than within, and returns the exit code.
func (p *Process) Wait(within time.Duration) (code int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		p.t.Fatalf("%s: has not ended after %v", p.Cmd, within)
	}
	return p.Cmd.ProcessState.ExitCode()
}

// unclean is what a node says that had too little time to stop, upon which it exits 1.
var unclean = regexp.MustCompile(`context deadline exceeded|did not (stop|close) (in|within)|is ended`)

// ExpectExit waits for the end, and fails the test at another exit code. A stop that runs out of
// time is one all the same if the machine stood still.
func (p *Process) ExpectExit(code int) {
	p.t.Helper()
	got := p.Wait(Patience)
	if code == 0 && got == 1 && StoodStill() {
		Eventually(p.t, fmt.Sprintf("%s, which ends with 1, says that it had too little time to stop", p.Cmd), func() bool {
			return unclean.MatchString(p.Log.String()) // a terminal passes it on after the end
		})
		return
	}
	if got != code {
		p.t.Fatalf("%s: exit code %d, want %d\n%s", p.Cmd, got, code, p.Log.String())
	}
}

// Await waits until done, which is asked again whenever the process has written something.
func (p *Process) Await(what string, done func() bool) {
	p.t.Helper()
	late := time.After(Patience)
	for {
		out, log, ended := p.Out.more(), p.Log.more(), p.HasEnded() // before done looks
		switch {
		case done():
			return
		case ended:
			p.t.Fatalf("%s: ended, and not %s", p.Cmd, what)
		}
		select {
		case <-out:
		case <-log:
		case <-p.ended:
		case <-late:
			p.t.Fatalf("%s: not after %v: %s", p.Cmd, Patience, what)
		}
	}
}

// Prints waits for standard output to have what pattern says, and returns that with its groups.
func (p *Process) Prints(pattern string) (match []string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	p.Await("it prints "+pattern, func() bool {
		match = re.FindStringSubmatch(p.Out.String())
		return match != nil
	})
	return match
}

// Says waits for standard error to have text.
func (p *Process) Says(text string) {
	p.t.Helper()
	p.Await(fmt.Sprintf("it says %q", text), func() bool { return strings.Contains(p.Log.String(), text) })
}

// Line is a line of a node's log in JSON, with what tests care for.
type Line struct {
	Level, Msg, Hint, Error, PeerID, HTTP string
	Addrs, Modules                        []string
}

// Logs waits for a line of the log with this message, and returns the first.
func (p *Process) Logs(msg string) (found Line) {
	p.t.Helper()
	p.Await(fmt.Sprintf("it logs %q", msg), func() bool {
		for text := range strings.Lines(p.Log.String()) {
			var l Line
			if strings.Contains(text, msg) && json.Unmarshal([]byte(text), &l) == nil && l.Msg == msg {
				found = l
				return true
			}
		}
		return false
	})
	return found
}
