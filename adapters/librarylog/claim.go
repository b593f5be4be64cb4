package librarylog

import (
	"context"
	"io"
	"log"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"go.opentelemetry.io/otel"
	"go.uber.org/zap/zapcore"

	"github.com/opencloud/ocnode/adapters/internal/flood"
	_ "github.com/opencloud/ocnode/adapters/librarylog/quiet" // before canonicallog
)

// The families of libraries, as the attribute "logger" of each line has them. The
// attribute "component" says which part of one, by the library's own name for it.
const (
	LibP2P = "libp2p"  // go-libp2p: swarm, identify, transports, managers
	KadDHT = "kad-dht" // go-libp2p-kad-dht and its routing table
	Other  = "other"   // quic-go, OpenTelemetry, and all that has no logger of its own
)

const (
	loggerKey    = "logger"
	componentKey = "component"
)

// A component that complains of the same thing for every peer says so this often, unless
// its family is heard at debug: an operator has to see it, not to read all of it.
const (
	floodLines = 3
	floodEvery = time.Minute
)

// Claim is the right to hear the libraries of this process.
type Claim struct {
	handler slog.Handler
	limits  sync.Map // component -> *flood.Limit: as many as libraries have
	restore func()
}

// current is who hears the libraries, nil for nobody. It has to be one for the process,
// as their loggers are.
var current atomic.Pointer[Claim]

// taking is held while the claim changes hands, so that what was there before the first
// holder is what comes after the last.
var taking sync.Mutex

var silence = sync.OnceFunc(func() {
	gologshim.SetDefaultHandler(&relay{family: LibP2P})
	golog.SetPrimaryCore(&core{to: &relay{family: KadDHT}})
	_ = golog.SetLogLevel("*", "fatal") // a level that there is
})

// Silence keeps the libraries from writing to standard error; unless somebody holds a
// Claim nobody hears them then. It must come before their first line, which is before
// the first host is made.
func Silence() { silence() }

// Take gives the claim to handler, and with it what uses the standard library's log
// or slog.Default. Whoever held it before hears no more. handler is asked about every
// line whether it is enabled, with the attributes logger and component.
func Take(handler slog.Handler) *Claim {
	Silence()
	taking.Lock()
	defer taking.Unlock()
	if holder := current.Load(); holder != nil {
		holder.release()
	}
	c := &Claim{handler: handler}
	before, writer, flags := slog.Default(), log.Writer(), log.Flags()
	c.restore = func() {
		slog.SetDefault(before)
		log.SetOutput(writer)
		log.SetFlags(flags)
	}
	current.Store(c)
	slog.SetDefault(slog.New((&relay{family: Other}).WithAttrs([]slog.Attr{slog.String(componentKey, "slog")})))
	log.SetOutput(lines{&relay{family: Other}})
	log.SetFlags(0)
	otel.SetLogger(logr.FromSlogHandler((&relay{family: Other}).WithAttrs([]slog.Attr{slog.String(componentKey, "otel")})))
	c.LevelsChanged()
	return c
}

// LevelsChanged has to be called when the claim's handler hears more or less than
// before.
func (c *Claim) LevelsChanged() {
	level := zapcore.FatalLevel
	heard := c.handler.WithAttrs([]slog.Attr{slog.String(loggerKey, KadDHT)})
	for _, l := range []zapcore.Level{zapcore.ErrorLevel, zapcore.WarnLevel, zapcore.InfoLevel, zapcore.DebugLevel} {
		if heard.Enabled(context.Background(), slogLevel(l)) {
			level = l
		}
	}
	_ = golog.SetLogLevel("*", level.String())
}

// Release gives the claim up: what libraries log is heard by nobody then, and log and
// slog.Default are as they were.
func (c *Claim) Release() {
	taking.Lock()
	defer taking.Unlock()
	c.release()
}

func (c *Claim) release() {
	if current.CompareAndSwap(c, nil) {
		c.restore()
		_ = golog.SetLogLevel("*", "fatal")
	}
}

// take says whether a component may write a line now, and how many it could not.
func (c *Claim) take(component string) (pass bool, suppressed int) {
	l, _ := c.limits.LoadOrStore(component, &flood.Limit{Lines: floodLines, Every: floodEvery})
	return l.(*flood.Limit).Take(time.Now())
}

// relay is a handler that hands what one family logs to whoever holds the claim.
type relay struct {
	family    string
	component string
	with      []func(slog.Handler) slog.Handler // the groups and attributes, in order
	grouped   bool
	made      atomic.Pointer[made]
}

// made is what a relay made of a claim's handler.
type made struct {
	claim   *Claim
	handler slog.Handler
}

func (r *relay) to() *made {
	c := current.Load()
	if m := r.made.Load(); m != nil && m.claim == c {
		return m
	}
	m := &made{c, slog.DiscardHandler}
	if c != nil {
		m.handler = c.handler.WithAttrs([]slog.Attr{slog.String(loggerKey, r.family), slog.String(componentKey, r.component)})
		for _, with := range r.with {
			m.handler = with(m.handler)
		}
	}
	r.made.Store(m)
	return m
}

func (r *relay) Enabled(ctx context.Context, level slog.Level) bool {
	return r.to().handler.Enabled(ctx, level)
}

func (r *relay) Handle(ctx context.Context, record slog.Record) error {
	m := r.to()
	if !m.handler.Enabled(ctx, record.Level) { // not all who log ask before
		return nil
	}
	if record.Level >= slog.LevelWarn && !m.handler.Enabled(ctx, slog.LevelDebug) {
		pass, suppressed := m.claim.take(r.family + "/" + r.component)
		if !pass {
			return nil
		}
		if suppressed > 0 {
			record = record.Clone()
			record.AddAttrs(slog.Int("suppressed", suppressed))
		}
	}
	return m.handler.Handle(ctx, r.distinct(record))
}

// reserved are the keys that each line has once.
var reserved = []string{slog.TimeKey, slog.LevelKey, slog.MessageKey, slog.SourceKey, loggerKey, componentKey}

// rename keeps a library's attribute from standing as a second value of a key that
// each line has: kad-dht gives how long something took as "time".
func rename(a slog.Attr) slog.Attr {
	if slices.Contains(reserved, a.Key) {
		a.Key = "lib." + a.Key
	}
	return a
}

// distinct returns record with no attribute of a reserved key.
func (r *relay) distinct(record slog.Record) slog.Record {
	taken := false
	record.Attrs(func(a slog.Attr) bool {
		taken = slices.Contains(reserved, a.Key)
		return !taken
	})
	if !taken || r.grouped {
		return record
	}
	other := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
	record.Attrs(func(a slog.Attr) bool {
		other.AddAttrs(rename(a))
		return true
	})
	return other
}

// WithAttrs implements slog.Handler. A logger's or a component's name is not
// repeated as such: it says which part of the family it is.
func (r *relay) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := r.next()
	var rest []slog.Attr
	for _, a := range attrs {
		if (a.Key == loggerKey || a.Key == componentKey) && !r.grouped {
			next.component = a.Value.String()
			continue
		}
		if !r.grouped {
			a = rename(a)
		}
		rest = append(rest, a)
	}
	if len(rest) > 0 {
		next.with = append(next.with, func(h slog.Handler) slog.Handler { return h.WithAttrs(rest) })
	}
	return next
}

// WithGroup implements slog.Handler.
func (r *relay) WithGroup(name string) slog.Handler {
	next := r.next()
	next.grouped = true
	next.with = append(next.with, func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
	return next
}

func (r *relay) next() *relay {
	return &relay{
		family: r.family, component: r.component, grouped: r.grouped,
		with: append([]func(slog.Handler) slog.Handler{}, r.with...),
	}
}

// lines makes records of what is written to the standard library's log: a line a
// call, without a level. Who uses it has something to complain of.
type lines struct{ to *relay }

var _ io.Writer = lines{}

// Write implements io.Writer.
func (l lines) Write(p []byte) (int, error) {
	text, level, component := strings.TrimSpace(string(p)), slog.LevelWarn, "log"
	if strings.Contains(text, "quic-go") {
		component = "quic-go"
		if strings.Contains(text, "UDP-Buffer-Sizes") {
			// Most machines have small buffers: of interest to whoever has many indexers on
			// QUIC, nothing that is wrong.
			level = slog.LevelInfo
		}
	}
	h := l.to.WithAttrs([]slog.Attr{slog.String(componentKey, component)})
	return len(p), h.Handle(context.Background(), slog.NewRecord(time.Now(), level, text, 0))
}
