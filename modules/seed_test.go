package modules_test

import (
	"time"

	"go.uber.org/fx"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// followsNobody has a native hear of others by gossip alone.
func followsNobody() fx.Option {
	return fx.Decorate(func(t ports.Transport) ports.Transport { return unconnected{t} })
}

// looksUpAtTicks has a native look up what it hears at its refresh ticks alone.
func looksUpAtTicks() fx.Option {
	return fx.Decorate(func(a ports.Announcer) ports.Announcer { return porttest.AtTicks(a, 30*time.Second) })
}

// unconnected is a transport that knows of no neighbour.
type unconnected struct{ ports.Transport }

func (unconnected) Neighbours() (natives []ports.Neighbour, changed <-chan struct{}) { return nil, nil }
