//go:build !unix

package cmd

import (
	"context"
	"io"
)

// whileRead returns a context that ends with ctx: only a write tells here whether anybody
// reads.
func whileRead(ctx context.Context, _ io.Writer) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}
