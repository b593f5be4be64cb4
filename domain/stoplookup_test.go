package domain_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A native stops while it looks somebody up. That says nothing of whom it looked for: a finder takes a
// not-found of a whole native for the last word, and asks no other.
func TestAStopIsNoNotFound(t *testing.T) {
	id := peerIDs(4)
	store := &stubStore{get: func(ctx context.Context, _ ports.PeerID) (ports.Entry, error) {
		<-ctx.Done()
		return ports.Entry{}, ports.ErrNotFound // as ports.Store has it
	}}
	porttest.FakeTime(t, func(t *testing.T) {
		n, _ := made(t, settings{self: id[0], store: store}, &porttest.Recorder{})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		synctest.Wait()
		time.AfterFunc(time.Second, stop)
		_, err := n.LookUp(t.Context(), id[1], id[2])
		if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeBusy {
			t.Errorf("told %v, want busy", err)
		}
		<-done
	})
}
