package modules

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/opencloud/ocnode/adapters/librarylog"
	"github.com/opencloud/ocnode/modules/config"
	"go.uber.org/fx"
)

type logSection struct {
	Level  string            `koanf:"level" live:"true" help:"what is logged at least: debug, info, warn or error"`
	Levels map[string]string `koanf:"levels" live:"true" help:"other levels for single subsystems, the value of \"logger\" in their lines, e.g. dht=debug,libp2p=warn"`
	Format string            `koanf:"format" help:"how it is logged: text for people, json for machines"`
}

// logComments are the comments on logSection in a configuration file.
var logComments = map[string]Comment{
	"level": {Text: "What is logged at least: debug, info, warn or error. It goes to standard error."},
	"levels": {Text: "Other levels for single subsystems, e.g. {dht: debug, libp2p: warn}. Each line names its own as \"logger\": " +
		"node, host, stream, registry, indexer, dht, gossip, mdns, http, fx, and of the libraries libp2p, kad-dht, pubsub, " +
		"other. Left out, the first three libraries are heard from error on, unless level is debug. Both levels can " +
		"be changed while the node runs: kill -HUP."},
}

// loggerKey is the attribute that says which subsystem a line is from. A logger is
// given its name by With(loggerKey, name), which replaces the name it had.
const loggerKey = "logger"

// logger names the subsystems of this project.
const (
	loggerNode     = "node" // start, stop, configuration; whatever has no name
	loggerHost     = "host"
	loggerStream   = "stream"
	loggerRegistry = "registry"
	loggerIndexer  = "indexer"
	loggerDHT      = "dht"
	loggerGossip   = "gossip"
	loggerMDNS     = "mdns"
	loggerHTTP     = "http"
	loggerFx       = "fx"
	loggerPubSub   = "pubsub" // go-libp2p-pubsub's own lines
)

// subsystems are the names that log.levels knows, besides those of modules that are not
// ocnode's own.
var subsystems = []string{
	loggerNode, loggerHost, loggerStream, loggerRegistry, loggerIndexer, loggerDHT, loggerGossip, loggerMDNS, loggerHTTP, loggerFx,
	librarylog.LibP2P, librarylog.KadDHT, loggerPubSub, librarylog.Other,
}

// unnamed are the modules that write no line under their own name.
var unnamed = []string{"log", "telemetry", "data", "native", "limits", "trust", "finder"}

// libraries are those subsystems whose authors did not know what this program tolerates,
// and mends by itself: unless they are given a level of their own they are heard from
// error on, or at debug if that is what is logged of all.
var libraries = []string{librarylog.LibP2P, librarylog.KadDHT, loggerPubSub}

var logModule = Module{
	Name:     "log",
	Summary:  "one log for all parts",
	Always:   true,
	Section:  logSection{Level: "info", Levels: map[string]string{}, Format: "text"},
	Comments: logComments,
	Check: func(p *Plan) {
		s := Settings[logSection](p, "log")
		if _, ok := logLevels[s.Level]; !ok {
			p.Mistake("log.level", "%q is not a level%s; allowed are %s", s.Level, meant(s.Level, levelNames), enumerate(levelNames))
		}
		known := p.subsystems()
		for _, name := range slices.Sorted(maps.Keys(s.Levels)) {
			if !slices.Contains(known, name) {
				p.ItemMistake("log.levels", name, "%q is not a subsystem%s; allowed are %s", name, meant(name, known), enumerate(known))
			}
			if level := s.Levels[name]; !slices.Contains(levelNames, level) {
				p.ItemMistake("log.levels", name, "%q, for %s, is not a level%s; allowed are %s", level, name, meant(level, levelNames), enumerate(levelNames))
			}
		}
		if !slices.Contains(formats, s.Format) {
			p.Mistake("log.format", "%q is not a format%s; allowed are %s", s.Format, meant(s.Format, formats), enumerate(formats))
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, Settings[logSection](p, "log")),
			fx.Provide(newLog),
		)
	},
}

var (
	levelNames = []string{"debug", "info", "warn", "error"}
	logLevels  = map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	formats = []string{"text", "json"}
)

// subsystems returns the names that log.levels knows in this plan.
func (p *Plan) subsystems() []string {
	known := slices.Clone(subsystems)
	for _, m := range p.list {
		if !slices.Contains(known, m.Name) && !slices.Contains(unnamed, m.Name) {
			known = append(known, m.Name)
		}
	}
	return known
}

// meant is what to add about a word that is not known.
func meant(word string, known []string) string {
	if near := config.Nearest(word, known); near != "" {
		return fmt.Sprintf(", did you mean %s?", near)
	}
	return ""
}

// enumerate writes a, b and c.
func enumerate(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

func newLog(p *Plan, s logSection, env Environment, reloads *Reloads, closers *Closers) *slog.Logger {
	levels := newLevels(p.subsystems())
	levels.set(s)
	all := &slog.HandlerOptions{Level: slog.LevelDebug} // levels choose
	var out slog.Handler = slog.NewTextHandler(env.Log, all)
	if s.Format == "json" {
		out = slog.NewJSONHandler(env.Log, all)
	}
	h := newLogHandler(out, levels)
	changed := func() {}
	if env.Process {
		claim := librarylog.Take(h)
		closers.Add(func() error { claim.Release(); return nil })
		changed = claim.LevelsChanged
	} else {
		librarylog.Silence() // nobody could say which node they speak of
	}
	reloads.Add(func(p *Plan) {
		levels.set(Settings[logSection](p, "log"))
		changed()
	})
	return slog.New(h)
}

// levels has from where on each subsystem is heard. The map is never written again.
type levels struct {
	own  map[string]*slog.LevelVar
	rest *slog.LevelVar
}

func newLevels(known []string) *levels {
	l := &levels{own: make(map[string]*slog.LevelVar), rest: new(slog.LevelVar)}
	for _, name := range known {
		l.own[name] = new(slog.LevelVar)
	}
	return l
}

func (l *levels) of(name string) *slog.LevelVar {
	if own := l.own[name]; own != nil {
		return own
	}
	return l.rest
}

// set takes levels that Check has found right.
func (l *levels) set(s logSection) {
	all := logLevels[s.Level]
	l.rest.Set(all)
	for name, own := range l.own {
		level := all
		if given, ok := s.Levels[name]; ok {
			level = logLevels[given]
		} else if slices.Contains(libraries, name) && all > slog.LevelDebug {
			level = slog.LevelError
		}
		own.Set(level)
	}
}

// logHandler hands on what its subsystem is heard with. Which subsystem that is comes
// as the attribute loggerKey, and a later one replaces it.
type logHandler struct {
	out     slog.Handler // of all subsystems
	levels  *levels
	level   *slog.LevelVar
	with    []func(slog.Handler) slog.Handler // the groups and attributes, in order
	grouped bool
	named   slog.Handler // out with the name and with all of with
}

func newLogHandler(out slog.Handler, levels *levels) slog.Handler {
	return (&logHandler{out: out, levels: levels}).name(loggerNode)
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error { return h.named.Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var rest []slog.Attr
	for _, a := range attrs {
		if a.Key == loggerKey && !h.grouped {
			h = h.name(a.Value.String())
			continue
		}
		rest = append(rest, a)
	}
	if len(rest) == 0 {
		return h
	}
	return h.then(func(out slog.Handler) slog.Handler { return out.WithAttrs(rest) })
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	next := h.then(func(out slog.Handler) slog.Handler { return out.WithGroup(name) })
	next.grouped = true
	return next
}

func (h *logHandler) name(name string) *logHandler {
	next := *h
	next.level = h.levels.of(name)
	next.named = h.out.WithAttrs([]slog.Attr{slog.String(loggerKey, name)})
	for _, with := range h.with {
		next.named = with(next.named)
	}
	return &next
}

func (h *logHandler) then(with func(slog.Handler) slog.Handler) *logHandler {
	next := *h
	next.with = append(slices.Clip(h.with), with)
	next.named = with(h.named)
	return &next
}
