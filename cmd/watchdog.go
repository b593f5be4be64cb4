package cmd

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
)

// watchdog tells a service manager that asked for it (WatchdogSec= in systemd) that the
// node still answers, until ctx ends. A node that hangs tells nothing, and is restarted.
// What is asked is in this process: others may keep the network and HTTP busy, and
// that is no reason for a restart.
func watchdog(ctx context.Context, node *modules.Node) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		node.Log().Warn("the service manager's watchdog is not told of this node, since its variables make no sense", "error", err)
		return
	}
	if within > 0 {
		keepTelling(ctx, within/2, func() {
			node.Addrs() // of the libp2p host
			if r := node.Registry(); r != nil {
				r.Counts()                                    // of the live table
				_, _ = r.List(ctx, "", ports.Query{Limit: 1}) // under the order index
				_ = r.Waiting()                               // of the outbox
			}
		}, func() { tell(daemon.SdNotifyWatchdog) })
	}
}

// keepTelling calls ask and then tell, every so often, until ctx ends. While ask has
// not returned, it tells nothing; an ask that never does is left behind at the end.
func keepTelling(ctx context.Context, every time.Duration, ask, tell func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		answered := make(chan struct{})
		go func() { defer close(answered); ask() }()
		select {
		case <-ctx.Done():
			return
		case <-answered:
			tell()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
