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
// looks like the daemon's. Everything else is the dump of a crash or a message of a library. The
// supervisor keeps its first headBytes for the log line about the worker's end. It reads the rest,
// too, so that the worker never blocks.
//
// The limits of a worker are relayBurst entries at once and relayRate entries a second. Entries
// above them are dropped and counted. If a worker writes without end, the supervisor reads slowly.

// A share is a second limiter, which several workers share. It decides on an entry that the first
// limiter, the worker's own, lets pass. The entry counts as much as weight small entries. missed is
// the number of entries that the first limiter has dropped since the last call. ok says whether the
// entry may pass. If it may, before is the number that both limiters have dropped before it.
type share func(missed uint64, weight int) (before uint64, ok bool)

const (
	// headBytes limits the text that is kept, in bytes.
	headBytes = 8 << 10
	// entryBytes is the length of the longest log entry, in bytes.
	entryBytes = 16 << 10
	// relayBurst and relayRate (entries a second) limit a worker's log entries. An entry counts
	// once, and once more for each full KiB.
	relayBurst = 256
	relayRate  = 32
	// After gulpBytes that do not go to the log, relay pauses for gulpPause.
	gulpBytes = 1 << 20
	gulpPause = 10 * time.Millisecond
)

// relay reads r to its end, and returns the first headBytes of the text without log entries.
func relay(r io.Reader, log *zap.Logger, share share) string {
	in := bufio.NewReaderSize(r, entryBytes)
	limiter := audit.NewLimiter(relayBurst, relayRate)
	var head strings.Builder
	unused := 0
	for {
		line, err := in.ReadSlice('\n')
		if mayBeEntry(line) {
			weight := 1 + len(line)>>10
			before, ok := limiter.TakeWeight(time.Now(), 0, weight)
			if ok {
				before, ok = share(before, weight)
			}
			if before > 0 {
				logDropped(log, before)
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
				// The share may refuse this line. Then it counts the line as one
				// more dropped entry. So it is told n-1, and the sum stays n.
				if before, ok := share(n-1, 1); ok {
					logDropped(log, before+1)
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
	if !ok || err != nil || level > zapcore.ErrorLevel { // higher levels end the process
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
