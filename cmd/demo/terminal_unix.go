//go:build unix

package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// divertStderr keeps what libraries write to standard error off a screen that is being
// drawn: until reveal is called, which writes it there after all, it goes to a file in
// dir. Only the descriptor itself catches them all, since loggers keep the os.Stderr
// that they were made with. A crash, after which nothing reveals anything, is told at
// once. Standard error that is no terminal is left alone.
func divertStderr(dir string) (reveal func() error, err error) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() error { return nil }, nil
	}
	fd := int(os.Stderr.Fd())
	kept, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return nil, err
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep standard error: %w", err), kept.Close())
	}
	stderr := os.NewFile(uintptr(copied), os.Stderr.Name())
	if err := errors.Join(unix.Dup2(int(kept.Fd()), fd), debug.SetCrashOutput(stderr, debug.CrashOptions{})); err != nil {
		return nil, errors.Join(fmt.Errorf("divert standard error: %w", err), unix.Dup2(copied, fd), stderr.Close(), kept.Close())
	}
	return func() error {
		defer kept.Close()
		defer stderr.Close()
		_ = debug.SetCrashOutput(nil, debug.CrashOptions{}) // nil cannot fail
		if err := unix.Dup2(copied, fd); err != nil {
			return fmt.Errorf("restore standard error: %w", err)
		}
		if _, err := kept.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, _ = io.Copy(os.Stderr, kept) // the terminal may be gone
		return nil
	}, nil
}

// job is this process as its shell has it, which can stop it and bring it back. As a
// command it stops the job and everything in it, and returns once it is brought back.
type job struct {
	nothing
	stopping atomic.Bool // by the command, and not yet known to be back
}

// controlled reports whether a shell could bring this job back: one that can gives each
// job a process group of its own.
func (*job) controlled() bool {
	session, err := unix.Getsid(0)
	return err == nil && session != unix.Getpgrp()
}

func (j *job) Run() error {
	time.Sleep(handOverPause)
	back := make(chan os.Signal, 1)
	signal.Notify(back, unix.SIGCONT)
	defer signal.Stop(back)
	j.stopping.Store(true)
	// Not SIGTSTP, which comes back to watch.
	if err := unix.Kill(0, unix.SIGSTOP); err != nil {
		return fmt.Errorf("suspend: %w", err)
	}
	<-back
	return nil
}

// watch sees to it, until finish is called, that a stop from outside leaves the terminal
// as the key for it does; and that after one by SIGSTOP, which cannot be foreseen, the
// screen is drawn anew.
func (j *job) watch(send func(tea.Msg)) (finish func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCONT)
	if j.controlled() { // else the system ignores it, and nobody would bring us back
		signal.Notify(signals, unix.SIGTSTP)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for s := range signals {
			switch {
			case s == unix.SIGTSTP:
				send(handOver{j})
			case !j.stopping.CompareAndSwap(true, false):
				send(handOver{nothing{}})
			}
		}
	})
	return func() {
		signal.Stop(signals) // after which nothing sends
		close(signals)
		watching.Wait()
	}
}
