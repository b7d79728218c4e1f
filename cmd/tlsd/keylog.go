package main

import (
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"

	"tlsd/internal/handoff"
)

// This file has the key log (--key-log). Only the person who starts tlsd can name the key log, and
// no script can. The daemon opens it and hands workers a descriptor for appending. So workers need
// no right to open the file, and cannot read what is in it.

// openKeyLog opens the key log, and warns in the log and in the audit log. Without a path it
// returns nil.
func openKeyLog(path string, log, audit *zap.Logger) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	f, err := appendTo(path)
	if err != nil {
		return nil, fmt.Errorf("--key-log: %w", err)
	}
	full := f.Name()
	log.Warn("the secrets of all connections go to a file: with it, anybody can read the "+
		"connections' data", zap.String("path", full))
	audit.Warn("key-log", zap.Int("uid", os.Geteuid()), zap.String("path", full))
	return f, nil
}

// keyLog returns a function that appends a line to the key log. Each line is one write(2), so that
// the lines of several workers do not mix. Only the first failure is logged, because on a full disk
// every line fails.
func (w *workerProcess) keyLog() func(line string) {
	file := os.NewFile(handoff.KeyLogFD, "key log")
	var failed sync.Once
	return func(line string) {
		if _, err := file.WriteString(line + "\n"); err != nil {
			failed.Do(func() {
				w.log.Error("a secret could not be written to the key log; later "+
					"secrets may be missing, too", zap.Error(err))
			})
		}
	}
}
