package librarylog

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"go.uber.org/zap/zapcore"
)

var _ zapcore.Core = (*core)(nil)

// core writes zap's entries to a relay.
type core struct{ to slog.Handler }

// Enabled implements zapcore.LevelEnabler.
func (c *core) Enabled(level zapcore.Level) bool {
	return c.to.Enabled(context.Background(), slogLevel(level))
}

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{c.to.WithAttrs(attrsOf(fields))}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return checked
	}
	return checked.AddCore(e, c)
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	h := c.to
	if e.LoggerName != "" {
		h = h.WithAttrs([]slog.Attr{slog.String(loggerKey, e.LoggerName)})
	}
	record := slog.NewRecord(e.Time, slogLevel(e.Level), e.Message, e.Caller.PC)
	record.AddAttrs(attrsOf(fields)...)
	return h.Handle(context.Background(), record)
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }

func attrsOf(fields []zapcore.Field) []slog.Attr {
	var attrs []slog.Attr
	for _, f := range fields {
		encoded := zapcore.NewMapObjectEncoder() // of one field, to keep their order
		f.AddTo(encoded)
		for _, key := range slices.Sorted(maps.Keys(encoded.Fields)) {
			attrs = append(attrs, slog.Any(key, encoded.Fields[key]))
		}
	}
	return attrs
}

// slogLevel has no level above error: what zap takes for fatal ends the process by
// itself.
func slogLevel(level zapcore.Level) slog.Level {
	switch {
	case level <= zapcore.DebugLevel:
		return slog.LevelDebug
	case level == zapcore.InfoLevel:
		return slog.LevelInfo
	case level == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}
