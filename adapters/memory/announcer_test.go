package memory_test

import (
	"testing"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestAnnouncer(t *testing.T) {
	porttest.Announcer(t, func(t *testing.T) func() (ports.PeerID, porttest.ClosableAnnouncer) {
		topic := memory.NewTopic()
		return func() (ports.PeerID, porttest.ClosableAnnouncer) {
			id := hosttest.PeerID(t)
			a := topic.Join(id)
			t.Cleanup(func() { _ = a.Close() })
			return id, a
		}
	})
}
