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

// logs are the logs of the daemon's own process. Workers write to the log through the supervisor.
type logs struct {
	log, audit *zap.Logger
	level      zap.AtomicLevel // the log's level; the logger audit writes at every level
	queue      *logQueue
	auditFile  *auditLog // nil: audit lines are in the log
}

// openLogs opens the log and the audit log. The caller must close them.
func openLogs(o *options, stderr io.Writer) (*logs, error) {
	place, forPeople, err := logPlace(o.logFormat, stderr)
	if err != nil {
		return nil, err
	}
	l := &logs{queue: newLogQueue(place), level: zap.NewAtomicLevelAt(levelOf(o.logLevel))}
	log, audit := newLogAt(l.queue, l.queue.forAudit(), l.level, forPeople)
	// The audit logger writes this line at every log level. The logger log does not.
	l.queue.setOnLoss(func(entries int) {
		audit.Warn("log entries were lost, because they could not be written",
			zap.Int("entries", entries))
	})
	l.log = log
	if l.auditFile, l.audit, err = openAuditLog(o.auditLog, log, audit); err != nil {
		l.queue.close()
		return nil, err
	}
	return l, nil
}

// close writes the waiting entries of the log's queue and of the audit log's queue. It waits for
// each queue at most lastWrite.
func (l *logs) close() {
	l.auditFile.close()
	l.queue.close()
}

// newLog makes the log and the audit log. The audit log does not depend on the log level. An entry
// has a time, a level, a text and fields, and never payload, a key or a password. The form is JSON,
// or text if forPeople is set. An entry is one line. Its control characters are made visible.
func newLog(w io.Writer, level string, forPeople bool) (log, audit *zap.Logger) {
	return newLogAt(w, w, levelOf(level), forPeople)
}

// levelOf is the level that a value of --log-level names. For another name it is info.
func levelOf(name string) zapcore.Level {
	level, err := zapcore.ParseLevel(name)
	if err != nil {
		return zapcore.InfoLevel
	}
	return level
}

// newLogAt makes the two logs of newLog. The audit log goes to auditTo. The level lvl of the log
// may change while the log is in use.
func newLogAt(w, auditTo io.Writer, lvl zapcore.LevelEnabler, forPeople bool) (
	log, audit *zap.Logger) {
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
		out := zapcore.Lock(zapcore.AddSync(plainLines{w}))
		return zap.New(zapcore.NewCore(encoder, out, lvl))
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

// logPlace returns the writer for the log, and whether people read the log. The caller must not
// close the writer. With the format journal, the log goes to systemd's journal, by the journal's
// own protocol. With the format auto, the log goes there only if stderr leads to the journal and
// the journal can be opened. In all other cases the log goes to stderr.
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
