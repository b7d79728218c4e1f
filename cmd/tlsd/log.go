package main

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"tlsd/internal/journal"
	"tlsd/internal/plain"
)

// newLog makes the log and the audit log. The audit log has all of its lines at every log level. An
// entry has a time, a level, a text and fields. No entry has payload, a key or a password. The form
// is JSON, or text for people. In both forms an entry is one line, and control characters in it are
// visible, also those of a peer's text.
func newLog(w io.Writer, level string, forPeople bool) (log, audit *zap.Logger) {
	return newLogAt(w, w, levelOf(level), forPeople)
}

// levelOf is the level with a name that --log-level takes.
func levelOf(name string) zapcore.Level {
	level, err := zapcore.ParseLevel(name)
	if err != nil {
		return zapcore.InfoLevel
	}
	return level
}

// newLogAt makes a log whose level can change while it is used. auditTo gets the audit log.
func newLogAt(w, auditTo io.Writer, lvl zapcore.LevelEnabler, forPeople bool) (log, audit *zap.Logger) {
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(cfg)
	if forPeople {
		cfg.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(cfg)
	}
	to := func(w io.Writer, lvl zapcore.LevelEnabler) *zap.Logger {
		return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(plainLines{w})), lvl))
	}
	return to(w, lvl), to(auditTo, zapcore.InfoLevel).Named("audit")
}

// plainLines writes each entry as one plain line (see package plain).
type plainLines struct{ out io.Writer }

func (p plainLines) Write(entry []byte) (int, error) {
	if _, err := p.out.Write(plain.Line(entry)); err != nil {
		return 0, err
	}
	return len(entry), nil
}

// logPlace is where the log goes, and whether it is for people. The journal gets it by its own
// protocol if standard error leads there. The process keeps the place until it ends.
func logPlace(format string, stderr io.Writer) (place io.Writer, forPeople bool, err error) {
	f, isFile := stderr.(*os.File)
	ours := format == "auto" && isFile && journal.Is(f, os.Getenv("JOURNAL_STREAM"))
	if format == "journal" || ours {
		w, err := journal.Open(journal.Socket)
		if err == nil {
			return w, false, nil
		}
		if !ours {
			const text = "--log-format=journal: there is no journal of systemd: %w"
			return nil, false, fmt.Errorf(text, err)
		}
	}
	return stderr, format == "console" || format == "auto" && isTerminal(stderr), nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
