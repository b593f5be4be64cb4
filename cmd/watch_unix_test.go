//go:build unix

package cmd

import (
	"bufio"
	"io"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestATerminalGetsAWatchShortAndColored(t *testing.T) {
	const id = "12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	lines := bufio.NewReader(master)
	l := listed(id)
	l.Native = id
	for _, tc := range []struct {
		p     *program
		kind  ports.ChangeKind
		drawn string
	}{
		{&program{out: slave}, ports.ChangeJoined, `\x1b\[32mjoined\x1b\[m  `},
		{&program{out: slave}, ports.ChangeSnapshot, `snapshot`},
		{&program{out: slave, noColor: true}, ports.ChangeJoined, `joined  `},
	} {
		if err := tc.p.tell(httpapi.Event{Kind: string(tc.kind), Change: ports.Change{Kind: tc.kind, Listed: l}}); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadString('\n')
		want := `^\d\d:\d\d:\d\d   ` + tc.drawn + `   12D3Koo…TjYWaF   /ip4/10\.0\.0\.1/tcp/1   12D3Koo…TjYWaF\r\n$`
		if err != nil || !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("%s is %q, %v", tc.kind, line, err)
		}
	}
}

// TestAWatchEndsWhenItsPipeIsClosed has one like ocnode watch | head -1, of a native where nothing
// happens.
func TestAWatchEndsWhenItsPipeIsClosed(t *testing.T) {
	for name, pipe := range map[string]func() (r, w *os.File, err error){
		"pipe": os.Pipe,
		"socket": func() (r, w *os.File, err error) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return nil, nil, err
			}
			return os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w"), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // both wait
			r, w, err := pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			ctx, stop := whileRead(t.Context(), w)
			defer stop()
			select {
			case <-ctx.Done():
				t.Fatal("it ends although it is read")
			case <-time.After(2 * readEvery):
			}
			r.Close()
			select {
			case <-ctx.Done():
			case <-time.After(porttest.Patience):
				t.Error("it goes on although nobody reads")
			}
		})
	}
	for _, out := range []io.Writer{os.Stderr, io.Discard} { // whatever that is here
		ctx, stop := whileRead(t.Context(), out)
		stop()
		<-ctx.Done()
	}
}
