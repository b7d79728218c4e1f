package supervisor

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
	"tlsd/internal/testkit"
	"tlsd/internal/vitals"
)

// auditor returns a Supervisor that does not run, and the lines of its audit log.
func auditor() (*Supervisor, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	return New(Config{Log: zap.NewNop(), Audit: zap.New(core)}), logs
}

// mostPassed returns how many events a limiter lets pass at most from the time begun until now.
func mostPassed(begun time.Time, burst, rate int) int {
	return burst + int(float64(rate)*time.Since(begun).Seconds()) + 1
}

// The audit lines of a user are limited. Events that get no line are counted. Another user's lines
// are written.
func TestAuditLinesOfAUserAreLimited(t *testing.T) {
	t.Parallel()
	s, logs := auditor()
	const direct, reported = 100 * auditBurst, 5
	begun := time.Now()
	for range direct {
		s.writeAudit(Peer{UID: 1}, 7, &audit.Event{Name: audit.Denied}, 0)
	}
	for range reported { // a worker reports that it has left out an event
		s.writeAudit(Peer{UID: 1}, 7, nil, 1)
	}
	const events = direct + reported
	most := mostPassed(begun, auditBurst, auditRate)
	if n := logs.Len(); n < auditBurst || n > most {
		t.Errorf("%d events of a user get %d lines; want %d to %d", events, n, auditBurst,
			most)
	}
	s.writeAudit(Peer{UID: 2}, 8,
		&audit.Event{Name: audit.Denied, Method: "m", Asked: "a\nb", Key: "k"}, 3)
	last := logs.All()[logs.Len()-1]
	want := map[string]any{"uid": uint32(2), "gid": uint32(0), "pid": int32(0), "session": uint64(8), "method": "m", "asked": `a\nb`, "key": "k", "missed": uint64(3)}
	if last.Message != "denied" || !reflect.DeepEqual(last.ContextMap(), want) {
		t.Errorf("another user's line is %s %v, want %v", last.Message, last.ContextMap(),
			want)
	}
	s.closeAudit()
	told, written := uint64(0), uint64(0)
	for _, e := range logs.All() {
		f := e.ContextMap()
		if f["uid"] != uint32(1) {
			continue
		}
		if e.Message == "denied" {
			told++
			written++
		}
		if n, ok := f["missed"].(uint64); ok {
			told += n
		}
	}
	if told != events {
		t.Errorf("user 1's lines and their counts show %d events, want %d", told, events)
	}
	// The 3 are missed events of user 2.
	if got, want := s.tally.auditMissed, events-written+3; got != want {
		t.Errorf("the metric counts %d events without a line; want %d", got, want)
	}
}

// The supervisor remembers the limits of at most maxLimiters users. It forgets idle users, but not
// a user whose missed events are not logged yet.
func TestIdleUsersAreForgotten(t *testing.T) {
	t.Parallel()
	s, _ := auditor()
	s.auditLimiters[0] = audit.NewLimiter(1, 1) // a user with a missed event
	s.auditLimiters[0].Miss(1)
	for uid := range account(3 * maxLimiters) {
		s.auditLimiter(uid + 1)
	}
	if n := len(s.auditLimiters); n > maxLimiters || s.auditLimiters[0] == nil {
		t.Errorf("%d users are remembered, want at most %d; user 0, with a missed event, "+
			"is remembered: %v", n, maxLimiters, s.auditLimiters[0] != nil)
	}
}

// A worker can report events of its own sessions only.
func TestAuditOfAnotherSessionIsNotTaken(t *testing.T) {
	t.Parallel()
	s, logs := auditor()
	w := &worker{sessions: map[uint64]*session{5: {number: 5,
		peer: Peer{UID: 1000, GID: 1001, PID: 77}}}}
	s.auditReported(w, &handoff.Audit{Session: 6, Event: &audit.Event{Name: audit.Denied}})
	if logs.Len() != 0 {
		t.Errorf("an event of a session of another worker is logged: %v", logs.All())
	}
	s.auditReported(w, &handoff.Audit{Session: 5, Missed: 4})
	want := map[string]any{"uid": uint32(1000), "gid": uint32(1001), "pid": int32(77),
		"session": uint64(5), "missed": uint64(4)}
	if e := logs.All(); len(e) != 1 || e[0].Message != "left out" ||
		!reflect.DeepEqual(e[0].ContextMap(), want) {
		t.Errorf("for a session of its own the log has %v; want one line with %v", e, want)
	}
}

// A user that opens sessions in a loop cannot fill the log: the lines about its sessions are
// limited, and so are the log entries of the workers. Lines that are left out are counted. Another
// user's lines are written.
func TestTheLogOfAUsersSessionsIsLimited(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	s := New(Config{Log: zap.New(core), Audit: zap.NewNop()})
	page, file, err := vitals.New(1)
	testkit.Must(t, err)
	testkit.Must(t, file.Close())
	defer page.Close()
	const sessions = 100 * sessionBurst
	begun := time.Now()
	runSession := func(number uint64, uid uint32, entries string) {
		w := &worker{pid: 1, single: true, sessions: map[uint64]*session{},
			slots: slots{count: 1}, page: page}
		sess := &session{number: number, peer: Peer{UID: uid}}
		if !s.assign(w, sess) {
			t.Fatal("the worker does not take the session")
		}
		s.logStart(w, sess)
		relay(strings.NewReader(entries), s.Log, s.sharing(w))
		s.logEnd(sess, sess.fields(w))
	}
	const entry = `{"level":"info","msg":"entry"}` + "\n"
	for n := range uint64(sessions) {
		runSession(n, 1, entry)
	}
	// the last session writes more entries than the limit of one worker
	runSession(sessions, 1, strings.Repeat(entry, 2*relayBurst))
	count := func(text string) int { return logs.FilterMessage(text).Len() }
	started, entries := count("session started"), count("entry")
	most := mostPassed(begun, sessionBurst, sessionRate)
	if started < sessionBurst || started > most || count("session ended") != started {
		t.Errorf("%d starts and %d ends of %d sessions are logged; want equal numbers, "+
			"from %d to %d", started, count("session ended"), sessions,
			sessionBurst, most)
	}
	most = mostPassed(begun, entriesBurst, entriesRate)
	if entries < entriesBurst || entries > most {
		t.Errorf("%d entries of %d sessions are logged; want %d to %d", entries, sessions,
			entriesBurst, most)
	}
	runSession(sessions+1, 2, entry)
	if count("session started") != started+1 || count("session ended") != started+1 ||
		count("entry") != entries+1 {
		t.Error("another user's lines are left out")
	}
	s.closeSessionLines()
	toldSessions, toldEntries := 0, 0
	for _, e := range logs.All() {
		f := e.ContextMap()
		missed, _ := f["missed"].(uint64)
		dropped, _ := f["entries"].(uint64)
		switch {
		case e.Message == "session started":
			toldSessions += 1 + int(missed)
		case e.Message == "sessions left out":
			toldSessions += int(missed)
		case e.Message == "entry":
			toldEntries++
		default:
			toldEntries += int(missed + dropped)
		}
	}
	if want := sessions + 2; toldSessions != want {
		t.Errorf("the lines and their counts show %d sessions, want %d", toldSessions, want)
	}
	if want := sessions + 2*relayBurst + 1; toldEntries != want {
		t.Errorf("the lines and their counts show %d entries, want %d", toldEntries, want)
	}
}
