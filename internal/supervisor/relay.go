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

// This file reads a worker's standard error, which has lines of two kinds. A line that is a JSON
// log entry goes to the daemon's log, with the worker's pid. So no worker can write an entry that
// looks like the daemon's. Any other line belongs to the dump of a crash or to a message of a
// library. The supervisor keeps the first headBytes of these lines for the log line about the
// worker's end. It reads all lines, because a full pipe would block the worker.
//
// A worker may log relayBurst entries at once and relayRate entries a second. Entries above these
// limits are dropped and counted. If a worker writes without end, the supervisor reads slowly.

// An entry must pass two limiters: the worker's own, and one that all workers of the user share. A
// share is a function that asks the second limiter. The function relay calls it for each entry that
// the worker's own limiter lets pass.
//
// The parameter weight is 1 for a short entry, and more for a long one (see relayBurst). The
// parameter missed is the number of entries that the worker's own limiter has dropped since the
// previous call. If the result ok is true, the entry may pass. Then the result dropped is the
// number of the user's entries that all these limiters have dropped since the last entry that
// passed.
type share func(missed uint64, weight int) (dropped uint64, ok bool)

const (
	// headBytes limits the text for the log line about the worker's end, in bytes.
	headBytes = 8 << 10
	// entryBytes is the length of the longest log entry, in bytes. A longer line is no entry.
	entryBytes = 16 << 10
	// relayBurst and relayRate (entries a second) limit a worker's log entries. An entry counts
	// once, and once more for each full KiB.
	relayBurst = 256
	relayRate  = 32
	// After gulpBytes of text that does not go to the log, relay pauses for gulpPause.
	gulpBytes = 1 << 20
	gulpPause = 10 * time.Millisecond
)

// relay reads r to its end. It sends log entries to log, and returns the first headBytes of all
// other text.
func relay(r io.Reader, log *zap.Logger, share share) string {
	in := bufio.NewReaderSize(r, entryBytes)
	limiter := audit.NewLimiter(relayBurst, relayRate)
	var head strings.Builder
	unused := 0
	for {
		line, err := in.ReadSlice('\n')
		if mayBeEntry(line) {
			weight := 1 + len(line)>>10
			dropped, ok := limiter.TakeWeight(time.Now(), 0, weight)
			if ok {
				dropped, ok = share(dropped, weight)
			}
			if dropped > 0 {
				logDropped(log, dropped)
			}
			if ok && forward(line, log) {
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
				// The log should get a line about the n dropped entries. share()
				// counts a line that it refuses as one more dropped entry, but this
				// line is no entry. So share() gets n-1 instead of n. If it allows
				// the line, the 1 is added here.
				if dropped, ok := share(n-1, 1); ok {
					logDropped(log, dropped+1)
				}
			}
			return strings.ToValidUTF8(head.String(), "\uFFFD")
		}
	}
}

func logDropped(log *zap.Logger, entries uint64) {
	log.Warn("a worker has logged too much; entries were dropped",
		zap.Uint64("entries", entries))
}

func mayBeEntry(line []byte) bool { return len(line) > 0 && line[0] == '{' }

// forward writes the line to the log if the line is an entry.
func forward(line []byte, log *zap.Logger) bool {
	var entry map[string]any
	if json.Unmarshal(line, &entry) != nil {
		return false
	}
	text, ok := entry["msg"].(string)
	name, _ := entry["level"].(string)
	level, err := zapcore.ParseLevel(name)
	if !ok || err != nil || level > zapcore.ErrorLevel { // zap panics or exits at higher levels
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

// cleaned applies plain.Text to all text in a value of JSON. It may change the value.
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
