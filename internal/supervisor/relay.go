package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsd/internal/audit"
	"tlsd/internal/plain"
)

// What a worker writes to its standard error is of two kinds. A line that is a
// JSON log entry is written to the daemon's log again, marked with the worker's
// pid, so that a worker that acts for another user cannot write entries that look
// like the daemon's. All else (the dump of a crash, a library's
// complaint) is read to its end, so that the worker is never held up, and the
// beginning of it is kept for the log line about the worker's end.
//
// A worker has so many entries at once, and so many a second from then on. What is left out is
// counted. A worker that writes without end is read slowly.

const (
	// headBytes is how much is kept of what is not log entries.
	headBytes = 8 << 10
	// entryBytes is the longest log entry that is passed on.
	entryBytes = 16 << 10
	// relayBurst is how many entries a worker has at once, and relayRate how many a second. An
	// entry counts once for each KiB that it has begun.
	relayBurst = 256
	relayRate  = 32
	// After gulpBytes that were not passed on, reading rests for gulpPause.
	gulpBytes = 1 << 20
	gulpPause = 10 * time.Millisecond
)

// relay reads r to its end and returns the head of what was not log entries.
func relay(r io.Reader, log *zap.Logger) string {
	in := bufio.NewReaderSize(r, entryBytes)
	limiter := audit.NewLimiter(relayBurst, relayRate)
	var head strings.Builder
	unused := 0
	for {
		line, err := in.ReadSlice('\n')
		if mayBeEntry(line) {
			before, ok := limiter.TakeWeight(time.Now(), 0, 1+len(line)>>10)
			if before > 0 {
				leftOut(log, before)
			}
			if ok && passOn(line, log) {
				line = nil
			} else if !ok {
				unused += len(line)
				line = nil
			}
		}
		head.Write(line[:min(len(line), headBytes-head.Len())])
		if unused += len(line); unused >= gulpBytes {
			unused = 0
			time.Sleep(gulpPause)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if n := limiter.Missed(); n > 0 {
				leftOut(log, n)
			}
			return strings.ToValidUTF8(head.String(), "\uFFFD")
		}
	}
}

func leftOut(log *zap.Logger, entries uint64) {
	log.Warn("a worker has logged too much, and entries of it were left out", zap.Uint64("entries", entries))
}

func mayBeEntry(line []byte) bool { return len(line) > 0 && line[0] == '{' }

// passOn writes the line to the log, if it is an entry.
func passOn(line []byte, log *zap.Logger) bool {
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
		fields = append(fields, zap.Any(plain.Text(key, entryBytes), cleaned(entry[key])))
	}
	log.Log(level, plain.Text(text, entryBytes), fields...)
	return true
}

// cleaned makes all text in a value of JSON plain.
func cleaned(value any) any {
	switch v := value.(type) {
	case string:
		return plain.Text(v, entryBytes)
	case []any:
		for i := range v {
			v[i] = cleaned(v[i])
		}
	case map[string]any:
		out := map[string]any{}
		for key, member := range v {
			out[plain.Text(key, entryBytes)] = cleaned(member)
		}
		return out
	}
	return value
}
