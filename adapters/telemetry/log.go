package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/flood"
	"github.com/opencloud/ocnode/ports"
)

var _ ports.Observer = (*Log)(nil)

// Log writes what an operator wants to know at info or above, the rest at debug:
// at info, a network where nothing changes is silent. Of what strangers can cause
// without end, only so many lines a time come at info, and the next one says how
// many were suppressed; those come at debug.
type Log struct {
	registry, indexer *slog.Logger

	joined, expired, left, refused, putFailed, announceFailed *flood.Limit
	limited                                                   map[ports.Limit]*flood.Limit
	following, changesRefused, dropped, faulty, rival, twin   *flood.Limit
	untrusted                                                 *flood.Limit

	mu sync.Mutex
	// leases is what became of the last registration with each native.
	leases map[ports.PeerID]ports.EventKind
}

// maxNatives bounds the natives whose last registration is remembered: many times those
// that an indexer has or finds. If it is full, each is told of once more.
const maxNatives = 1000

// NewLog returns an observer that writes what happens to entries to registry, and
// what becomes of this node's own leases to indexer.
func NewLog(registry, indexer *slog.Logger) *Log {
	l := &Log{
		registry: registry,
		indexer:  indexer,
		// A small network coming up is told in full; a native that restarts under
		// thousands of indexers is not.
		joined:  &flood.Limit{Lines: 20, Every: 10 * time.Second},
		expired: &flood.Limit{Lines: 20, Every: 10 * time.Second},
		left:    &flood.Limit{Lines: 20, Every: 10 * time.Second},
		// Of a network of natives that is cut in two, as many.
		following: &flood.Limit{Lines: 20, Every: 10 * time.Second},
		// One sender that is refused, or a hundred thousand: the metrics tell them apart.
		refused: &flood.Limit{Lines: 1, Every: 10 * time.Second},
		// Whoever meets one limit must not hide that another is met too.
		limited: make(map[ports.Limit]*flood.Limit),
		// These fail with the network, for every entry alike, until somebody mends it.
		putFailed:      &flood.Limit{Lines: 1, Every: time.Minute},
		announceFailed: &flood.Limit{Lines: 1, Every: time.Minute},
		// A native of another TTL has all its changes refused, a batch a second.
		changesRefused: &flood.Limit{Lines: 1, Every: time.Minute},
		dropped:        &flood.Limit{Lines: 1, Every: 10 * time.Second},
		faulty:         &flood.Limit{Lines: 1, Every: time.Minute},
		rival:          &flood.Limit{Lines: 1, Every: time.Minute},
		twin:           &flood.Limit{Lines: 1, Every: time.Minute},
		untrusted:      &flood.Limit{Lines: 1, Every: time.Minute},
		leases:         make(map[ports.PeerID]ports.EventKind),
	}
	for _, limit := range ports.LimitNames {
		l.limited[limit] = &flood.Limit{Lines: 1, Every: 10 * time.Second}
	}
	return l
}

// Observe implements ports.Observer.
func (l *Log) Observe(e ports.Event) {
	switch e.Kind {
	case ports.EventRegistered, ports.EventLookedUp, ports.EventJoined:
		if e.Joined {
			l.rare(l.joined, slog.LevelInfo, "indexer joined", e)
			return
		}
	case ports.EventExpired:
		l.rare(l.expired, slog.LevelInfo, "indexer expired", e)
		return
	case ports.EventLeft:
		if e.Joined {
			l.rare(l.left, slog.LevelInfo, "indexer left", e)
			return
		}
	case ports.EventFollowing:
		l.rare(l.following, slog.LevelInfo, "following a native", e)
		return
	case ports.EventUnfollowed:
		l.rare(l.following, slog.LevelInfo, "native not followed any more", e)
		return
	case ports.EventTold:
		if e.Refused > 0 {
			l.rare(l.changesRefused, slog.LevelWarn, "changes refused", e)
			return
		}
	case ports.EventReconciled:
		l.rare(l.changesRefused, slog.LevelWarn, "a native's sums differ from what it told", e)
		return
	case ports.EventWatched:
		if e.Err != nil {
			l.rare(l.dropped, slog.LevelInfo, "watcher dropped", e)
			return
		}
	case ports.EventUntrusted:
		if e.What == ports.UntrustedWatch {
			l.rare(l.untrusted, slog.LevelInfo, "untrusted native refused", e)
			return
		}
	case ports.EventRefused:
		l.rare(l.refusals(e), slog.LevelInfo, "registration refused", e)
		return
	case ports.EventLimited:
		l.rare(l.refusals(e), slog.LevelInfo, "refused by a limit", e)
		return
	case ports.EventFaulty:
		if e.Fault == ports.FaultOlder { // mostly nobody's fault
			break
		}
		l.rare(l.faulty, slog.LevelInfo, "proof refused", e)
		return
	case ports.EventRival:
		l.aboutRival(e)
		return
	case ports.EventRivalGone:
		l.write(l.indexer, slog.LevelInfo, "no other process with this node's key lives any more; this one registers again", e, 0)
		return
	case ports.EventTwin:
		l.rare(l.twin, slog.LevelWarn, "two natives have one key, and what one of them is told the other does not know; stop one, or give it an identity of its own (data.dir)", e)
		return
	case ports.EventClock:
		l.clock(e)
		return
	case ports.EventUnheard:
		l.unheard(e)
		return
	case ports.EventPut:
		if e.Err != nil {
			l.rare(l.putFailed, slog.LevelWarn, "put failed", e)
			return
		}
	case ports.EventAnnounced:
		if e.Err != nil {
			l.rare(l.announceFailed, slog.LevelWarn, "announcement failed", e)
			return
		}
	case ports.EventLeaseGranted, ports.EventLeaseUnconfirmed:
		l.lease(slog.LevelInfo, e)
		return
	case ports.EventLeaseFailed, ports.EventLeaseLost:
		l.lease(slog.LevelWarn, e)
		return
	case ports.EventLeaseDoubted, ports.EventLeaseConfirmed:
		l.doubt(e)
		return
	case ports.EventLeaseLeft:
		level := slog.LevelInfo
		if e.Err != nil {
			level = slog.LevelWarn // it is still listed there
		}
		l.lease(level, e)
		return
	}
	l.write(l.registry, slog.LevelDebug, string(e.Kind), e, 0)
}

// doubt tells whether other natives show this node's leases.
func (l *Log) doubt(e ports.Event) {
	switch {
	case e.Via != "":
		l.write(l.indexer, slog.LevelInfo, string(e.Kind), e, 0)
	case e.Kind == ports.EventLeaseConfirmed:
		l.indexer.Info("another native shows this indexer again", "peerID", e.PeerID)
	default:
		l.indexer.Warn("natives hold leases of this indexer, and no other native shows them; it may be listed nowhere", "peerID", e.PeerID,
			"hint", "name a native that you trust in host.bootstrap, or in indexer.natives")
	}
}

// aboutRival tells both sides of two processes with one key.
func (l *Log) aboutRival(e ports.Event) {
	switch {
	case e.Via == "":
		l.rare(l.rival, slog.LevelWarn, "two processes have one key; the older is refused", e)
	case e.Err != nil:
		l.write(l.indexer, slog.LevelError, "another process with this node's key started after it; this one registers no more while that one lives", e, 0)
	default:
		l.write(l.indexer, slog.LevelWarn, "another process has this node's key, and started before it; stop that one", e, 0)
	}
}

// clock tells how wrong this node's clock is.
func (l *Log) clock(e ports.Event) {
	switch off := e.Took.Abs(); {
	case off == 0:
		l.registry.Info("this node's clock agrees with the other natives' again", "peerID", e.PeerID)
	case e.Via != "":
		l.registry.Warn("this node's clock and that of the only other native differ; nothing tells which of them is wrong", "peerID", e.PeerID, "via", e.Via, "ahead", e.Took, "hint", "have both clocks set, by NTP for one")
	case off > ports.ClockAllowance:
		l.registry.Warn("this node's clock is wrong, by the other natives' that it knows, and it goes by theirs", "peerID", e.PeerID, "ahead", e.Took, "hint", "have the clock set, by NTP for one")
	default:
		l.registry.Warn("this node's clock differs from the other natives'", "peerID", e.PeerID, "ahead", e.Took, "hint", "have the clock set, by NTP for one")
	}
}

// unheard tells that this native may not have heard its indexers.
func (l *Log) unheard(e ports.Event) {
	if e.Took > 0 {
		l.registry.Warn("this native slept or stood still; entries that ended meanwhile are shown as stale", "peerID", e.PeerID, "for", e.Took)
		return
	}
	l.registry.Warn("nothing answers this native; its line is lost, or its indexers have lost theirs; what ends now may be alive", "peerID", e.PeerID)
}

// refusals returns the limit on lines of a refusal.
func (l *Log) refusals(e ports.Event) *flood.Limit {
	if refusal, ok := errors.AsType[*ports.Refusal](e.Err); ok {
		if lim, ok := l.limited[refusal.Limit]; ok {
			return lim
		}
	}
	return l.refused
}

// rare writes e at level if lim has a line left, else at debug.
func (l *Log) rare(lim *flood.Limit, level slog.Level, msg string, e ports.Event) {
	pass, suppressed := lim.Take(time.Now())
	if !pass {
		level = slog.LevelDebug
	}
	l.write(l.registry, level, msg, e, suppressed)
}

// lease writes e at level if it is a change at its native, else at debug.
func (l *Log) lease(level slog.Level, e ports.Event) {
	l.mu.Lock()
	if l.leases[e.Via] == e.Kind {
		level = slog.LevelDebug
	}
	if len(l.leases) >= maxNatives {
		clear(l.leases)
	}
	l.leases[e.Via] = e.Kind
	l.mu.Unlock()
	l.write(l.indexer, level, string(e.Kind), e, 0)
}

// write writes the fields of e that are set.
func (l *Log) write(log *slog.Logger, level slog.Level, msg string, e ports.Event, suppressed int) {
	ctx := context.Background()
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	if e.What != "" {
		attrs = append(attrs, slog.String("what", string(e.What)))
	}
	if e.PeerID != "" {
		attrs = append(attrs, slog.String("peerID", string(e.PeerID)))
	}
	if e.Via != "" {
		attrs = append(attrs, slog.String("via", string(e.Via)))
	}
	if e.Code != "" {
		attrs = append(attrs, slog.String("code", string(e.Code)))
	}
	if e.Fault != "" {
		attrs = append(attrs, slog.String("fault", string(e.Fault)))
	}
	if e.Kind == ports.EventPut && e.Err == nil {
		attrs = append(attrs, slog.Int("replicas", e.Replicas))
	}
	if e.Kind == ports.EventTold || e.Kind == ports.EventReconciled {
		attrs = append(attrs, slog.Int("changes", e.Changes))
	}
	if e.Refused > 0 {
		attrs = append(attrs, slog.Int("refused", e.Refused))
	}
	if e.Took != 0 {
		attrs = append(attrs, slog.Duration("took", e.Took))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
		if refusal, ok := errors.AsType[*ports.Refusal](e.Err); ok && refusal.Limit != "" {
			attrs = append(attrs, slog.String("limit", string(refusal.Limit)))
		}
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	log.LogAttrs(ctx, level, msg, attrs...)
}
