package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"tlsd/internal/admin"
	"tlsd/internal/handoff"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/internal/vitals"
)

// numbers returns the numbers of all sessions, in the order of the list.
func (d *daemon) numbers() (list []uint64) {
	d.t.Helper()
	for _, s := range d.Sessions(d.t.Context()) {
		list = append(list, s.Number)
	}
	return list
}

// An administrator sees all sessions, and of each session what the supervisor and the worker know.
// A question about a session that does not exist is an error.
func TestSessionsAreShown(t *testing.T) {
	t.Parallel()
	said := handoff.Described{Connections: 2, Contexts: 1, Received: 5, Sent: 6, Calls: 3,
		Handles: []handoff.Handle{
			{Handle: 9, Kind: "client", State: "ready", Peer: "192.0.2.1:443",
				Received: 5, Sent: 6},
		}}
	d := startDaemon(t, workerPlay{Describes: said}, nil)
	pid := d.dial().pid()
	d.dial().pid()
	if got := d.numbers(); !slices.Equal(got, []uint64{1, 2}) {
		t.Fatalf("the list has the sessions %v, want 1 and 2", got)
	}
	s, err := d.Session(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Base(os.Args[0])
	if s.Number != 1 || s.Worker != pid || int(s.PID) != os.Getpid() ||
		s.UID != uint32(os.Getuid()) || s.Program != program[:min(len(program), 15)] ||
		s.Age < 0 {
		t.Errorf("the session is shown as %+v; want its number, its worker, and the "+
			"process, user and program of this test", s)
	}
	if !s.Known || s.Connections != 2 || s.Contexts != 1 || s.Received != 5 || s.Sent != 6 ||
		s.Calls != 3 ||
		!slices.Equal(s.Handles, []admin.Handle{{Handle: 9, Kind: "client", State: "ready",
			Peer: "192.0.2.1:443", Received: 5, Sent: 6}}) {
		t.Errorf("the session is shown as %+v; want what the worker has said about it", s)
	}
	var none *admin.Error
	if _, err := d.Session(t.Context(), 3); !errors.As(err, &none) || none.Kind != kind.Params {
		t.Errorf("the question about session 3, which does not exist, gives %v; want "+
			"kind params", err)
	}
}

// A worker that was taken over can answer anything about its sessions. Negative numbers, control
// characters, long texts and too many handles do not reach the administrator.
func TestAWorkersAnswerAboutASessionIsLimited(t *testing.T) {
	t.Parallel()
	said := handoff.Described{Connections: -1, Received: -5, Sent: 1 << 62}
	for range 2 * handoff.MostHandles {
		said.Handles = append(said.Handles, handoff.Handle{
			Handle: -3, Kind: "\x1b[2J", State: strings.Repeat("x", 50),
			Peer: strings.Repeat("x", 150) + "\n", Received: -1,
		})
	}
	d := startDaemon(t, workerPlay{Describes: said}, nil)
	d.dial().pid()
	s, err := d.Session(t.Context(), 1)
	if err != nil || !s.Known {
		t.Fatalf("the worker's answer is missing: %+v, %v", s, err)
	}
	if s.Connections != 0 || s.Received != 0 || s.Sent != 1<<62 ||
		len(s.Handles) != handoff.MostHandles {
		t.Errorf("the session is shown with %d connections, %d bytes received, %d sent, "+
			"and %d handles; want 0, 0, 1<<62 and %d", s.Connections, s.Received,
			s.Sent, len(s.Handles), handoff.MostHandles)
	}
	if h := s.Handles[0]; h.Handle != 0 || h.Received != 0 || h.Kind != `\x1b[2J` ||
		strings.ContainsRune(h.Peer, '\n') || len(h.State) > 16+len("…") {
		t.Errorf("a handle is shown as %+v; want 0 for negative numbers, no control "+
			"characters, and a short state", h)
	}
	if list := d.Sessions(t.Context()); len(list[0].Handles) != listedHandles {
		t.Errorf("a list has %d handles of a session, want %d", len(list[0].Handles),
			listedHandles)
	}
}

// waitsForRoom says whether sendQuery waits, in any goroutine, until a worker's channel has room.
func waitsForRoom() bool {
	sending := []byte("tlsd/internal/supervisor.(*Supervisor).sendQuery(")
	stacks := make([]byte, 1<<20)
	for g := range bytes.SplitSeq(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
		head, calls, _ := bytes.Cut(g, []byte("\n"))
		if bytes.Contains(head, []byte("[select")) && bytes.HasPrefix(calls, sending) {
			return true
		}
	}
	return false
}

// If a worker's channel is full, the supervisor sends its questions later, when the worker has
// read messages from the channel. Each question gets its answer.
func TestQuestionsWaitForRoom(t *testing.T) {
	t.Parallel()
	const most = 20
	s := New(Config{Log: zap.NewNop(), MaxSessions: most})
	ours, theirs, err := handoff.Pair()
	testkit.Must(t, err)
	t.Cleanup(func() { ours.Close() })
	page, file, err := vitals.New(most)
	testkit.Must(t, err)
	t.Cleanup(func() { file.Close(); page.Close() })
	w := &worker{channel: ours, page: page, gone: make(chan struct{}),
		sessions: map[uint64]*session{}, queries: map[uint64]*query{},
		slots: slots{count: most}}
	s.workers[w] = struct{}{}
	for n := range uint64(most) {
		w.sessions[n+1] = &session{number: n + 1, slot: int(n)}
	}
	worker := testkit.UnixConn(t, theirs)
	worker.SetDeadline(time.Now().Add(testkit.Patience))
	for ours.TrySend(handoff.ToWorker{}) == nil { // until the channel is full
	}
	all := s.collect(func(*session) bool { return true })
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, v := range all {
			s.sendQuery(t.Context(), v)
		}
	}()
	testkit.Until(t, "a question waits for room", func() bool {
		if isClosed(sent) {
			t.Fatal("all questions are sent, although the channel was full")
		}
		return waitsForRoom()
	})
	buf := make([]byte, handoff.MaxMessage)
	for n := 0; n < most; {
		k, err := worker.Read(buf)
		testkit.Must(t, err)
		var msg handoff.ToWorker
		if json.Unmarshal(buf[:k], &msg) == nil && msg.Describe != 0 {
			s.queryAnswered(w, &handoff.Described{Number: msg.Describe})
			n++
		}
	}
	<-sent
	for _, v := range all {
		if v.await(t.Context()); !v.Known {
			t.Errorf("the question about session %d has no answer", v.Number)
		}
	}
	if len(all) != most || len(w.queries) != 0 {
		t.Errorf("%d sessions are listed, want %d; %d questions are open, want 0", len(all),
			most, len(w.queries))
	}
}

// If a new log level is ordered while a worker gets its configuration, the last level that the
// worker gets is the new one.
func TestAWorkerHearsTheLastLevelLast(t *testing.T) {
	t.Parallel()
	for n := range 400 {
		s := New(Config{Log: zap.NewNop()})
		s.logLevel = "error"
		ours, theirs, err := handoff.Pair()
		testkit.Must(t, err)
		w := &worker{channel: ours, engaged: make(chan struct{})}
		s.workers[w] = struct{}{}
		var all sync.WaitGroup
		all.Go(func() { s.engage(w, nil) })
		all.Go(func() {
			for engaged := false; !engaged; {
				select {
				case <-w.engaged:
					engaged = true
				default: // try again: a blocked goroutine would wake up too late
				}
			}
			s.SetLogLevel("info")
		})
		all.Wait()
		ours.Close()
		last := ""
		for _, msg := range received(t, theirs) {
			if msg.LogLevel != "" {
				last = msg.LogLevel
			}
		}
		if last != "info" {
			t.Fatalf("the last log level that worker %d gets is %q, want info", n, last)
		}
	}
}

// received returns all messages that the supervisor has sent to a worker. The supervisor's end of
// the channel must be closed. theirs is the worker's end.
func received(t *testing.T, theirs *os.File) (list []handoff.ToWorker) {
	t.Helper()
	conn, err := net.FileConn(theirs)
	testkit.Must(t, err)
	defer conn.Close()
	theirs.Close()
	testkit.Must(t, conn.SetDeadline(time.Now().Add(testkit.Patience)))
	buf := make([]byte, handoff.MaxMessage)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return list
		}
		var msg handoff.ToWorker
		testkit.Must(t, json.Unmarshal(buf[:n], &msg))
		list = append(list, msg)
	}
}

// If a worker answers no question, and its sessions end, questions about ended sessions remain
// open. The supervisor remembers at most two questions for each slot of the worker.
func TestQuestionsToAWorkerAreBounded(t *testing.T) {
	t.Parallel()
	s := New(Config{Log: zap.NewNop()})
	page, file, err := vitals.New(1)
	testkit.Must(t, err)
	t.Cleanup(func() { file.Close(); page.Close() })
	w := &worker{page: page, queries: map[uint64]*query{}, slots: slots{count: 1}}
	s.workers[w] = struct{}{}
	for n := range uint64(5) {
		w.sessions = map[uint64]*session{n: {number: n}}
		s.collect(func(*session) bool { return true })
	}
	if len(w.queries) != 2 {
		t.Errorf("%d questions are open, want 2", len(w.queries))
	}
}

// An answer about a session, without a question, breaks the rules of the channel.
func TestAWorkerThatDescribesUnaskedIsKilled(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.say("describe")
	c.told("was killed because it broke the rules of its channel to tlsd")
}

// If a worker does not answer, the administrator still gets the list of sessions. The list is
// complete for the sessions of the other workers. About the silent worker's session the list has
// only what the supervisor knows itself.
func TestAWorkerThatDoesNotAnswerHoldsUpNoList(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	stuck := d.dial()
	pid := stuck.pid()
	d.dial().pid()
	stuck.say("freeze")
	d.until("the worker is stopped", func() bool { return !isRunning(pid) })
	defer unix.Kill(pid, unix.SIGCONT)
	// The first worker's question stays open all the time. The second worker may need long for
	// its answers, so the limit grows.
	d.answerTime = 50 * time.Millisecond
	for known := 0; known < 2; d.answerTime *= 2 {
		list := d.Sessions(t.Context())
		if len(list) != 2 || list[0].Known || list[0].Waits != "tls.Read 3" {
			t.Fatalf("the first of two workers is silent, and the list is %+v; want "+
				"both sessions, and the first without Known", list)
		}
		if list[1].Known {
			known++
		} else if d.answerTime > testkit.Patience/4 {
			t.Fatal("one worker is silent, and the other worker's answer is missing")
		}
	}
	d.answerTime = testkit.Patience
	testkit.Must(t, unix.Kill(pid, unix.SIGCONT))
	d.until("the worker answers again",
		func() bool { s, _ := d.Session(t.Context(), 1); return s.Known })
}

// If an administrator ends a session, its caller is told the reason. Other sessions go on, even in
// the same worker.
func TestAnAdministratorEndsASession(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		d := startDaemon(t, workerPlay{}, func(c *Config) { c.Shared = shared })
		a := d.dial()
		a.pid()
		b := d.dial()
		pid := b.pid()
		testkit.Must(t, d.End(t.Context(), 1, "it is in the way\x1b"))
		if got := a.hear(); got != `told: it is in the way\x1b` {
			t.Errorf("the caller is told %q; want the reason, with ESC escaped", got)
		}
		a.cut()
		if got := d.numbers(); !slices.Equal(got, []uint64{2}) {
			t.Errorf("session 1 was ended, and the list has the sessions %v; want "+
				"only 2", got)
		}
		if b.pid() != pid {
			t.Error("the other session has got another worker")
		}
		var none *admin.Error
		if err := d.End(t.Context(), 1, "again"); !errors.As(err, &none) ||
			none.Kind != kind.Params {
			t.Errorf("a second order to end the session gives %v; want kind params",
				err)
		}
		if n := d.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 0 {
			t.Errorf("%d errors are logged, want none", n)
		}
	}
}

// If a worker that is not shared disobeys the order to end its session, the worker is killed. This
// death is not the user's fault, so it does not delay the user's next session.
func TestASessionWhoseWorkerDisobeysIsEnded(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{Disobey: true}, nil)
	c := d.dial()
	c.pid()
	for range freeDeaths {
		d.countDeath(userAccount(uint32(os.Getuid()))) // one more would cause a wait
	}
	testkit.Must(t, d.End(t.Context(), 1, "enough"))
	c.told("has been killed, because the administrator has ended this session: enough")
	d.until("the session counts as ended by the administrator", func() bool {
		got := d.values()
		return got["tlsd_sessions_ended_total administrator"] == 1 &&
			got["tlsd_sessions_ended_total lost"] == 0
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.streaks[userAccount(uint32(os.Getuid()))].deaths; n != freeDeaths {
		t.Errorf("%d deaths are counted, want %d", n, freeDeaths)
	}
}

// A shared worker that does not obey the order to end a session is not killed, because it has other
// sessions. Instead the supervisor shuts down the connection of the session's caller.
func TestASharedWorkerThatDisobeysIsNotKilled(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{Disobey: true}, func(c *Config) { c.Shared = true })
	a := d.dial()
	a.pid()
	b := d.dial()
	pid := b.pid()
	// The worker ignores the order, but ends the session when the caller's connection ends.
	testkit.Must(t, d.End(t.Context(), 1, "enough"))
	a.cut()
	if b.pid() != pid {
		t.Error("the other session has got another worker")
	}
}

// A new log level reaches all workers that run, and workers that start later.
func TestTheLogLevelReachesWorkers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.pid()
	d.SetLogLevel("warn")
	d.logged("the level is warn", 2) // the serving worker and the spare one
	d.dial().pid()
	d.logged("the level is warn", 3)
}

// A worker's first message is its configuration, even if log levels are ordered while it starts.
func TestTheLogLevelDoesNotOvertakeTheConfiguration(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) {
		// A long configuration takes longer to send. So a log level has the time to
		// overtake it.
		c.WorkerConfig = fmt.Appendf(nil, `{"filler":"%s"}`, strings.Repeat("x", 60000))
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for !isClosed(stop) {
			d.SetLogLevel("warn")
			time.Sleep(50 * time.Microsecond) // so that no channel becomes full
		}
	}()
	defer func() { close(stop); <-stopped }()
	for range 30 {
		c := d.dial()
		c.pid()
		c.say("bye")
		c.cut()
	}
	if n := d.logs.FilterMessage("worker ended unexpectedly").Len(); n != 0 {
		t.Errorf("%d workers have died: a log level came before the configuration", n)
	}
}

// Health names the library that the newest worker of the daemon's own user has reported. A worker
// of another user may lie. So its report is used only if no worker has reported before.
func TestHealthNamesTheLibraryOfTheLastWorker(t *testing.T) {
	t.Parallel()
	s := New(Config{Log: zap.NewNop(), MaxSessions: 1})
	for _, c := range []struct {
		said  handoff.Ready
		other bool
		want  string
	}{
		{handoff.Ready{Backend: "stub"}, false, "no usable OpenSSL"},
		{handoff.Ready{Backend: "openssl", Version: "1"}, false, "1"},
		{handoff.Ready{Backend: "stub", Version: "lie"}, true, "1"},
		{handoff.Ready{Backend: "openssl", Version: "2"}, false, "2"},
	} {
		s.recordReport(&worker{report: c.said, otherUser: c.other})
		h := s.Health()
		if h.Library != c.want || h.Healthy != (c.said.Backend == "openssl" || c.other) {
			t.Errorf("a worker (of another user: %t) has reported %+v; Health says "+
				"%+v, want the library %q", c.other, c.said, h, c.want)
		}
	}
}

// Health says whether tlsd can serve a new session, and if not, why. The question itself changes
// nothing.
func TestHealth(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{Report: handoff.Ready{Backend: "openssl", Version: "V"}},
		func(c *Config) { c.MaxSessions = 2 })
	d.until("tlsd is healthy", func() bool { return d.Health().Healthy })
	d.dial().pid()
	d.until("a spare is ready", func() bool { return d.Health().Workers["spare"] == 1 })
	before := d.logs.Len()
	if h := d.Health(); h.Library != "V" || h.Sessions != 1 || h.MaxSessions != 2 ||
		h.Workers["serving"] != 1 || h.Uptime <= 0 {
		t.Errorf("with one session of two Health says %+v; want the library V, 1 session "+
			"of 2, and 1 serving worker", h)
	}
	if d.logs.Len() != before || d.countWorkers() != 2 {
		t.Error("the question has logged something, or started a worker")
	}
	c := d.dial()
	c.pid()
	if h := d.Health(); h.Healthy || !strings.Contains(h.Problems[0], "--max-sessions") {
		t.Errorf("with as many sessions as --max-sessions allows, Health says %+v; want a "+
			"problem that names --max-sessions", h)
	}
	d.stop()
	d.until("Health says that tlsd is stopping", func() bool {
		h := d.Health()
		return !h.Healthy && strings.Contains(h.Problems[0], "stopping")
	})
	stub := startDaemon(t, workerPlay{Report: handoff.Ready{Backend: "stub"}}, nil)
	stub.until("the worker is ready", func() bool { return len(stub.poolPIDs()) == 1 })
	stub.until("Health says that there is no usable OpenSSL", func() bool {
		h := stub.Health()
		return !h.Healthy && strings.Contains(strings.Join(h.Problems, " "),
			"no usable OpenSSL")
	})
}
