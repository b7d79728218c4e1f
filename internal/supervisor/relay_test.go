package supervisor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A worker's standard error has log entries, which relay passes on, and other text, such as a crash
// dump. relay returns the head of the other text. An entry cannot look like an entry of
// another worker or of the audit log.
func TestRelaySeparatesEntriesFromOtherText(t *testing.T) {
	t.Parallel()
	longDump := strings.Repeat("x", 99) + "\n" +
		strings.Repeat(strings.Repeat("y", 99)+"\n", 10000)
	tests := []struct {
		name, in, head, entries string
	}{
		{"nothing", "", "", ""},
		{"an entry", `{"level":"warn","ts":"x","msg":"hello","b":1,"a":"y"}` + "\n", "", "warn hello a=y b=1|"},
		{"it cannot name another worker", `{"level":"info","msg":"hello","worker":1}` + "\n", "", "info hello|"},
		{"it cannot pose as the audit", `{"level":"info","logger":"audit","msg":"denied"}` + "\n", "", "info denied|"},
		{"it cannot end the daemon", `{"level":"fatal","msg":"x"}` + "\n" + `{"level":"panic","msg":"x"}` + "\n",
			`{"level":"fatal","msg":"x"}` + "\n" + `{"level":"panic","msg":"x"}` + "\n", ""},
		{"JSON that is no entry", "{\"a\":1}\n{\n", "{\"a\":1}\n{\n", ""},
		{"a dump", "SIGSEGV\n\ngoroutine 1\n", "SIGSEGV\n\ngoroutine 1\n", ""},
		{"mixed, without an end", "one\n" + `{"level":"info","msg":"x"}` + "\ntwo", "one\ntwo", "info x|"},
		{"a long dump", longDump, longDump[:headBytes], ""},
		{"a line without end", strings.Repeat("z", 1<<20), strings.Repeat("z", headBytes),
			""},
		{"an overlong entry", `{"level":"info","msg":"` + strings.Repeat("z", entryBytes) + `"}` + "\n",
			(`{"level":"info","msg":"` + strings.Repeat("z", headBytes))[:headBytes], ""},
		{"not UTF-8", "a\xffb", "a\uFFFDb", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			core, logs := observer.New(zapcore.DebugLevel)
			head := relay(strings.NewReader(tt.in), zap.New(core), unshared)
			if head != tt.head {
				t.Errorf("relay returns %d bytes %.80q; want %d bytes %.80q",
					len(head), head, len(tt.head), tt.head)
			}
			var got strings.Builder
			for _, e := range logs.All() {
				got.WriteString(e.Level.String() + " " + e.Message)
				for _, f := range e.Context {
					v := f.String
					if f.Type != zapcore.StringType {
						v = "1"
					}
					got.WriteString(" " + f.Key + "=" + v)
				}
				got.WriteString("|")
			}
			if got.String() != tt.entries {
				t.Errorf("the log has the entries %q; want %q", got.String(),
					tt.entries)
			}
		})
	}
}

// A worker that writes too many entries cannot fill the log. The log says how many were dropped.
func TestRelayCountsDroppedEntries(t *testing.T) {
	t.Parallel()
	const entries = 100 * relayBurst
	core, logs := observer.New(zapcore.DebugLevel)
	in := strings.Repeat(`{"level":"info","msg":"x"}`+"\n", entries) + "dump\n"
	begun := time.Now()
	if head := relay(strings.NewReader(in), zap.New(core), unshared); head != "dump\n" {
		t.Errorf("relay returns %q; want dump, the text after the entries", head)
	}
	passed, missed := logs.FilterMessage("x").Len(), uint64(0)
	for _, e := range logs.FilterFieldKey("entries").All() {
		missed += e.ContextMap()["entries"].(uint64)
	}
	most := mostPassed(begun, relayBurst, relayRate)
	if passed < relayBurst || passed > most || passed+int(missed) != entries {
		t.Errorf("of %d entries %d are passed on, and %d count as dropped; want %d to %d "+
			"passed on, and the others counted", entries, passed, missed, relayBurst,
			most)
	}
}

// relay escapes control characters in a worker's entries, in texts and in names of fields.
func TestRelayPassesOnPlainText(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	relay(strings.NewReader(`{"level":"info","msg":"a\nb\tc\u001b[1m","k\u202e":["\u009b",{"l\n":"\u007f"}]}`+"\n"),
		zap.New(core), unshared)
	e := logs.All()
	if len(e) != 1 || e[0].Message != `a\nb\tc\x1b[1m` || fmt.Sprint(e[0].ContextMap()) != `map[k\u202e:[\u009b map[l\n:\x7f]]]` {
		t.Errorf("the entries in the log are %+v; want one, escaped", e)
	}
}

// unshared lets all entries pass: the worker shares no limit with other workers.
func unshared(missed uint64, _ int) (uint64, bool) { return missed, true }
