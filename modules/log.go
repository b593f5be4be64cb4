package modules

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/fx"
)

type logSection struct {
	Level  string `koanf:"level" help:"what is logged at least: debug, info, warn or error"`
	Format string `koanf:"format" help:"how: text or json"`
}

var logModule = Module{
	Name:    "log",
	Summary: "one log for all parts",
	Always:  true,
	Section: logSection{Level: "info", Format: "text"},
	Check: func(p *Plan) {
		s := settings[logSection](p, "log")
		if _, ok := s.level(); !ok {
			p.Mistake("log.level", "is not a level; allowed are debug, info, warn and error")
		}
		if !slices.Contains([]string{"text", "json"}, s.Format) {
			p.Mistake("log.format", "is not a format; allowed are text and json")
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, settings[logSection](p, "log")),
			fx.Provide(newLog),
		)
	},
}

func (s logSection) level() (level slog.Level, ok bool) {
	level, ok = map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}[s.Level]
	return level, ok
}

func newLog(s logSection, env Environment) *slog.Logger {
	level, _ := s.level()
	opts := &slog.HandlerOptions{Level: level}
	if s.Format == "json" {
		return slog.New(slog.NewJSONHandler(env.Log, opts))
	}
	return slog.New(slog.NewTextHandler(env.Log, opts))
}

// library returns the log of a library: what it takes for worth telling an operator
// is detail here, unless something is wrong.
func library(log *slog.Logger, name string) *slog.Logger {
	return slog.New(demoted{log.Handler()}).With("logger", name)
}

type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, level slog.Level) bool {
	return d.Handler.Enabled(ctx, demote(level))
}

func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = demote(r.Level)
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(attrs)}
}
func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }

func demote(level slog.Level) slog.Level {
	if level < slog.LevelWarn {
		return slog.LevelDebug
	}
	return level
}
