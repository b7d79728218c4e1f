package main

import (
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// newLog makes the log, and the log of the audit, which has all of its lines whatever the level is. Entries have a time, a
// level, a text and fields; no entry ever has payload, a key or a password. They are JSON, or else for people.
func newLog(w io.Writer, level string, forPeople bool) (log, audit *zap.Logger) {
	return newLogAt(w, levelOf(level), forPeople)
}

// levelOf is the level of a name that --log-level takes.
func levelOf(name string) zapcore.Level {
	level, err := zapcore.ParseLevel(name)
	if err != nil {
		return zapcore.InfoLevel
	}
	return level
}

// newLogAt makes a log whose level can change while it is used.
func newLogAt(w io.Writer, lvl zapcore.LevelEnabler, forPeople bool) (log, audit *zap.Logger) {
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(cfg)
	if forPeople {
		cfg.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(cfg)
	}
	out := zapcore.Lock(zapcore.AddSync(w))
	return zap.New(zapcore.NewCore(encoder, out, lvl)), zap.New(zapcore.NewCore(encoder, out, zapcore.InfoLevel)).Named("audit")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
