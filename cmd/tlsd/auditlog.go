package main

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"go.uber.org/zap"
)

// With --audit-log, tlsd writes audit lines to a file as JSON, and not to the log. Tlsd opens the
// file again at SIGHUP, so that another program can rotate it. The file has a queue of its own. So
// a full disk makes no caller wait, and lost lines are counted.

// An auditLog is the file of --audit-log, and its queue.
type auditLog struct {
	path  string
	file  atomic.Pointer[os.File]
	queue *logQueue
	log   *zap.Logger // for reports about lost lines

	failing bool // the last Write has failed; only the queue's goroutine uses failing
}

// openAuditLog opens the file, and returns a logger that writes to it. If the path is empty, it
// returns nil and the logger audit, which writes audit lines to the log.
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

// Write writes entries to the file. Only the queue calls it. It logs the first failure, and no
// further one until a Write has succeeded.
func (a *auditLog) Write(entries []byte) (int, error) {
	for {
		f := a.file.Load()
		n, err := f.Write(entries)
		if n == 0 && errors.Is(err, os.ErrClosed) && a.file.Load() != f {
			continue // reopen has replaced the file
		}
		if err != nil && !a.failing {
			a.log.Error("audit lines cannot be written and are lost; a warning "+
				"follows when they can be written again",
				zap.String("path", a.path), zap.Error(err))
		}
		a.failing = err != nil
		return n, err
	}
}

// reopen opens the path again, because another file may be there by now. If that fails, the old
// file stays in use. Only one goroutine may call reopen. On a nil auditLog it does nothing.
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
	_ = a.file.Swap(f).Close() // a Write in progress still goes to the old file
	a.log.Info("audit log opened again", zap.String("path", a.path))
}

// close writes the lines in the queue, and takes at most lastWrite.
func (a *auditLog) close() {
	if a == nil {
		return
	}
	a.queue.close()
	_ = a.file.Load().Close()
}

// losses is the number of lost lines, from the start.
func (a *auditLog) losses() int {
	if a == nil {
		return 0
	}
	return a.queue.losses()
}
