package modules

import (
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
