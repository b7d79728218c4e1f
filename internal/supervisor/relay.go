package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// What a worker writes to its standard error is of two kinds. A line that is a
// JSON log entry is written to the daemon's log again, marked with the worker's
// pid, so that a worker that acts for another user cannot write entries that look
// like the daemon's. All else (the dump of a crash, a library's
// complaint) is read to its end, so that the worker is never held up, and the
// beginning of it is kept for the log line about the worker's end.

const (
	// headBytes is how much is kept of what is not log entries.
	headBytes = 8 << 10
	// entryBytes is the longest log entry that is passed on.
	entryBytes = 16 << 10
)

// relay reads r to its end and returns the head of what was not log entries.
func relay(r io.Reader, log *zap.Logger) string {
	in := bufio.NewReaderSize(r, entryBytes)
	var head strings.Builder
	for {
		line, err := in.ReadSlice('\n')
		if !passOn(line, log) {
			head.Write(line[:min(len(line), headBytes-head.Len())])
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return strings.ToValidUTF8(head.String(), "\uFFFD")
		}
	}
}

// passOn writes the line to the log, if it is an entry.
func passOn(line []byte, log *zap.Logger) bool {
	if len(line) == 0 || line[0] != '{' {
		return false
	}
	var entry map[string]any
	if json.Unmarshal(line, &entry) != nil {
		return false
	}
	text, ok := entry["msg"].(string)
	name, _ := entry["level"].(string)
	level, err := zapcore.ParseLevel(name)
	if !ok || err != nil || level > zapcore.ErrorLevel { // a level above ends the process that logs
		return false
	}
	for _, key := range []string{"msg", "level", "ts", "worker", "logger"} {
		delete(entry, key)
	}
	var fields []zap.Field
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		fields = append(fields, zap.Any(key, entry[key]))
	}
	log.Log(level, text, fields...)
	return true
}
