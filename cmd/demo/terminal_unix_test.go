//go:build unix

package demo

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"
)

// What libraries write to standard error reaches the terminal once the screen is gone,
// and a crash at once.
func TestStandardErrorIsKeptOffTheScreen(t *testing.T) {
	if os.Getenv("OCNODE_TEST_STDERR") != "" {
		writeToStderr()
		return
	}
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint("crash ", crash), func(t *testing.T) {
			master, slave, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			var seen strings.Builder
			var mu sync.Mutex
			var reading sync.WaitGroup
			reading.Go(func() {
				b := make([]byte, 1<<10)
				for {
					n, err := master.Read(b)
					if err != nil {
						return // the other side is closed
					}
					mu.Lock()
					seen.Write(b[:n])
					mu.Unlock()
				}
			})
			text := func() string {
				mu.Lock()
				defer mu.Unlock()
				return seen.String()
			}

			cmd := exec.Command(os.Args[0], "-test.run=^TestStandardErrorIsKeptOffTheScreen$")
			cmd.Env = append(os.Environ(), "OCNODE_TEST_STDERR="+fmt.Sprint("crash ", crash), "TMPDIR="+t.TempDir())
			cmd.Stderr = slave
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || line != "written\n" {
				t.Errorf("it says %q, %v", line, err)
			}
			if got := text(); got != "" {
				t.Errorf("while the screen is drawn, the terminal gets %q", got)
			}
			_ = in.Close()
			failed := cmd.Wait() != nil
			_ = slave.Close()
			reading.Wait()
			_ = master.Close()
			switch got := text(); {
			case failed != crash:
				t.Errorf("it failed: %v", failed)
			case crash && !strings.Contains(got, "panic: beyond recovery"):
				t.Errorf("of the crash the terminal gets %q", got)
			case !crash && got != "a library's word\r\n":
				t.Errorf("afterwards the terminal gets %q", got)
			}
		})
	}
}

// writeToStderr does what is tested, in a process of its own.
func writeToStderr() {
	reveal, err := divertStderr(os.TempDir())
	if err != nil {
		panic(err)
	}
	println("a library's word") // straight to the descriptor
	fmt.Println("written")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is closed
	if os.Getenv("OCNODE_TEST_STDERR") == "crash true" {
		go panic("beyond recovery")
		select {}
	}
	if err := reveal(); err != nil {
		panic(err)
	}
	os.Exit(0)
}
