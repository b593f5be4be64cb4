//go:build unix

package cmd

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// readEvery is how often it is looked at whether a command is still waited for.
const readEvery = 500 * time.Millisecond

// whileRead returns a context that ends with ctx, or within a second once out is a pipe that
// nobody reads any more: a write would tell, but a watch may have nothing to write for long.
func whileRead(ctx context.Context, out io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	f, ok := out.(*os.File)
	if !ok {
		return ctx, cancel
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return ctx, cancel
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return ctx, cancel
	}
	go func() {
		defer cancel()
		for gone := false; !gone && ctx.Err() == nil; {
			err := conn.Control(func(fd uintptr) {
				out := []unix.PollFd{{Fd: int32(fd)}} // errors are told without being asked for
				n, err := unix.Poll(out, int(readEvery/time.Millisecond))
				gone = n > 0 || err != nil && !errors.Is(err, unix.EINTR)
			})
			gone = gone || err != nil
		}
	}()
	return ctx, cancel
}
