package main

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"go.uber.org/zap"
)

// The file of --audit-log. Audit lines are written to it as JSON, and not to the log. It is opened
// again at SIGHUP, so that a program that rotates files can move it away. A queue of its own stands
// before it: a disk that is full holds up nobody, and what is lost is counted.

// An auditLog is the file, and its queue.
type auditLog struct {
	path  string
	file  atomic.Pointer[os.File]
	queue *logQueue
	log   *zap.Logger // where it is said that lines are lost

	failing bool // the last Write has failed; only the queue's goroutine uses it
}

// openAuditLog opens the file, and gives the log that leads there. Without a path it gives nil, and
// the log that it was given.
func openAuditLog(path string, log, audit *zap.Logger) (*auditLog, *zap.Logger, error) {
	if path == "" {
		return nil, audit, nil
	}
	f, err := appendTo(path)
	if err != nil {
		return nil, nil, fmt.Errorf("--audit-log: %w", err)
	}
	a := &auditLog{path: path, log: log}
	a.file.Store(f)
	a.queue = newLogQueue(a)
	_, audit = newLogAt(a.queue, a.queue.forAudit(), zap.InfoLevel, false)
	a.queue.setOnLoss(func(entries int) {
		n := zap.Int("entries", entries)
		audit.Warn("audit lines were lost, because they could not be written", n)
		log.Warn("the audit log can be written again; lines of it were lost",
			zap.String("path", path), n)
	})
	return a, audit, nil
}

// Write writes entries to the file, only for the queue. The first failure is logged, and then no
// other until a Write has succeeded.
func (a *auditLog) Write(entries []byte) (int, error) {
	for {
		f := a.file.Load()
		n, err := f.Write(entries)
		if n == 0 && errors.Is(err, os.ErrClosed) && a.file.Load() != f {
			continue // it was opened again meanwhile
		}
		if err != nil && !a.failing {
			a.log.Error("audit lines cannot be written and are lost, until a warning "+
				"says otherwise", zap.String("path", a.path), zap.Error(err))
		}
		a.failing = err != nil
		return n, err
	}
}

// reopen opens the file again, which may be another one. If that fails, the old one stays. Only one
// goroutine may call it. Without a file it does nothing.
func (a *auditLog) reopen() {
	if a == nil {
		return
	}
	f, err := appendTo(a.path)
	if err != nil {
		a.log.Error("the audit log cannot be opened again, and the file that is open "+
			"stays in use", zap.Error(err))
		return
	}
	_ = a.file.Swap(f).Close() // a Write that is under way ends in it first
	a.log.Info("audit log opened again", zap.String("path", a.path))
}

// close writes what waits, but not for long.
func (a *auditLog) close() {
	if a == nil {
		return
	}
	a.queue.close()
	_ = a.file.Load().Close()
}

// losses is how many lines were lost, from the start.
func (a *auditLog) losses() int {
	if a == nil {
		return 0
	}
	return a.queue.losses()
}
