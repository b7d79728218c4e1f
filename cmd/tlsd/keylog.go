package main

import (
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"

	"tlsd/internal/handoff"
)

// The file of --key-log. Only who starts tlsd can name it, and no script. The daemon opens it, so
// that workers write to it although they may open no file, and can read none of what others have
// written.

// openKeyLog opens it, and says in the log and to the audit what that means. Without a path there
// is none.
func openKeyLog(path string, log, audit *zap.Logger) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	f, err := appendTo(path)
	if err != nil {
		return nil, fmt.Errorf("--key-log: %w", err)
	}
	full := f.Name()
	log.Warn("the secrets of all connections are written to a file: who reads it can read what they carry", zap.String("path", full))
	audit.Warn("key-log", zap.Int("uid", os.Geteuid()), zap.String("path", full))
	return f, nil
}

// keyLog gives what writes a line to the file that the daemon has opened. One write(2) is one line,
// so that those of several workers do not mix. Only the first failure is logged: on a full disk
// each line fails.
func (w *workerProcess) keyLog() func(line string) {
	file := os.NewFile(handoff.KeyLogFD, "key log")
	var failed sync.Once
	return func(line string) {
		if _, err := file.WriteString(line + "\n"); err != nil {
			failed.Do(func() {
				w.log.Error("a secret could not be written to the key log, and later ones may not be, either",
					zap.Error(err))
			})
		}
	}
}
