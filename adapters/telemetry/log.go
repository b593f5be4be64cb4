package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

var _ ports.Observer = (*Log)(nil)

// Log writes what an operator wants to know at info or above, the rest at debug:
// at info, a network where nothing changes is silent. Of what strangers can cause
// without end, only so many lines a time come at info, and the next one says how
// many were suppressed; those come at debug.
type Log struct {
	log *slog.Logger

	joined, expired, refused, putFailed, announceFailed *limit

	mu sync.Mutex
	// leases is what became of the last registration with each native: as many as are
	// configured.
	leases map[ports.PeerID]ports.EventKind
}

// NewLog returns an observer that writes to log.
func NewLog(log *slog.Logger) *Log {
	return &Log{
		log: log,
		// A small network coming up is told in full; a native that restarts under
		// thousands of indexers is not.
		joined:  &limit{lines: 20, every: 10 * time.Second},
		expired: &limit{lines: 20, every: 10 * time.Second},
		// One sender that is refused, or a hundred thousand: the metrics tell them apart.
		refused: &limit{lines: 1, every: 10 * time.Second},
		// These fail with the network, for every entry alike, until somebody mends it.
		putFailed:      &limit{lines: 1, every: time.Minute},
		announceFailed: &limit{lines: 1, every: time.Minute},
		leases:         make(map[ports.PeerID]ports.EventKind),
	}
}

// Observe implements ports.Observer.
func (l *Log) Observe(e ports.Event) {
	switch e.Kind {
	case ports.EventRegistered, ports.EventLookedUp:
		if e.Joined {
			l.limited(l.joined, slog.LevelInfo, "indexer joined", e)
			return
		}
	case ports.EventExpired:
		l.limited(l.expired, slog.LevelInfo, "indexer expired", e)
		return
	case ports.EventRefused:
		l.limited(l.refused, slog.LevelInfo, "registration refused", e)
		return
	case ports.EventPut:
		if e.Err != nil {
			l.limited(l.putFailed, slog.LevelWarn, "put failed", e)
			return
		}
	case ports.EventAnnounced:
		if e.Err != nil {
			l.limited(l.announceFailed, slog.LevelWarn, "announcement failed", e)
			return
		}
	case ports.EventLeaseGranted, ports.EventLeaseUnconfirmed:
		l.lease(slog.LevelInfo, e)
		return
	case ports.EventLeaseFailed, ports.EventLeaseLost:
		l.lease(slog.LevelWarn, e)
		return
	}
	l.write(slog.LevelDebug, string(e.Kind), e, 0)
}

// limited writes e at level if lim has a line left, else at debug.
func (l *Log) limited(lim *limit, level slog.Level, msg string, e ports.Event) {
	pass, suppressed := lim.take(time.Now())
	if !pass {
		level = slog.LevelDebug
	}
	l.write(level, msg, e, suppressed)
}

// lease writes e at level if it is a change at its native, else at debug.
func (l *Log) lease(level slog.Level, e ports.Event) {
	l.mu.Lock()
	if l.leases[e.Via] == e.Kind {
		level = slog.LevelDebug
	}
	l.leases[e.Via] = e.Kind
	l.mu.Unlock()
	l.write(level, string(e.Kind), e, 0)
}

// write writes the fields of e that are set.
func (l *Log) write(level slog.Level, msg string, e ports.Event, suppressed int) {
	ctx := context.Background()
	if !l.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 7)
	if e.PeerID != "" {
		attrs = append(attrs, slog.String("peerID", string(e.PeerID)))
	}
	if e.Via != "" {
		attrs = append(attrs, slog.String("via", string(e.Via)))
	}
	if e.Code != "" {
		attrs = append(attrs, slog.String("code", string(e.Code)))
	}
	if e.Kind == ports.EventPut && e.Err == nil {
		attrs = append(attrs, slog.Int("replicas", e.Replicas))
	}
	if e.Took != 0 {
		attrs = append(attrs, slog.Duration("took", e.Took))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	l.log.LogAttrs(ctx, level, msg, attrs...)
}

// limit lets so many lines pass in every period, which begins with its first line.
type limit struct {
	lines int
	every time.Duration

	mu         sync.Mutex
	begun      time.Time
	passed     int
	suppressed int
}

// take says whether a line may pass now, and how many did not since the last that
// did.
func (l *limit) take(now time.Time) (pass bool, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.begun) >= l.every {
		l.begun, l.passed = now, 0
	}
	if l.passed == l.lines {
		l.suppressed++
		return false, 0
	}
	l.passed++
	suppressed, l.suppressed = l.suppressed, 0
	return true, suppressed
}
