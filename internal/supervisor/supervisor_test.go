package supervisor

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/sockets"
	"tlsd/internal/testkit"
)

// Each session has a process of its own, which ends with the session. Other sessions go on.
func TestEachSessionHasAWorkerOfItsOwn(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	a, b := d.dial(), d.dial()
	pa, pb := a.pid(), b.pid()
	if pa == pb || pa == os.Getpid() {
		t.Fatalf("workers %d and %d; want two processes", pa, pb)
	}
	if !strings.Contains(a.ask("who"), "session=true") {
		t.Error("the worker is not the leader of a session of its own: a terminal's " +
			"signals reach it")
	}
	a.say("bye")
	a.cut()
	f := d.logged("session ended", 1)
	if f["uid"] != uint32(os.Getuid()) || f["pid"] != int32(os.Getpid()) ||
		f["worker"] != int64(pa) {
		t.Errorf("the log's line about the end of the session has %v; want the caller's "+
			"user and process, and worker %d", f, pa)
	}
	d.until("its worker is gone", func() bool { return unix.Kill(pa, 0) == unix.ESRCH })
	if b.pid() != pb {
		t.Error("the other session has got another worker")
	}
	if got := d.logs.FilterMessage("worker ended unexpectedly").Len(); got != 0 {
		t.Errorf("%d workers ended unexpectedly", got)
	}
}

// A worker gets no secrets from the daemon's environment, and no descriptors of the daemon. It gets
// the variables that OpenSSL needs, its channel to the supervisor, and the caller's socket.
func TestWorkersHaveNothingOfTheDaemons(t *testing.T) {
	t.Setenv("TLSD_SECRET", "1")
	t.Setenv("SSLKEYLOGFILE", "/tmp/keys")
	t.Setenv("SSL_CERT_DIR", "/certs")
	// This test does not check descriptors that the daemon has inherited. The main function of
	// tlsd (cmd/tlsd) makes inherited descriptors close-on-exec.
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	if env := c.ask("environment"); strings.Contains(env, "TLSD_SECRET") ||
		strings.Contains(env, "SSLKEYLOGFILE") ||
		!strings.Contains(env, "SSL_CERT_DIR=/certs") {
		t.Errorf("the worker's environment is %q; want SSL_CERT_DIR of the daemon, but "+
			"neither TLSD_SECRET nor SSLKEYLOGFILE", env)
	}
	if env := c.ask("environment"); !strings.Contains(env, "MALLOC_ARENA_MAX=1") {
		t.Errorf("the worker's environment is %q; want MALLOC_ARENA_MAX=1, so that all "+
			"threads use one heap", env)
	}
	files := strings.Fields(c.ask("files"))
	sockets := slices.DeleteFunc(slices.Clone(files),
		func(f string) bool { return !strings.Contains(f, ":socket:") })
	if len(sockets) != 2 { // the worker's channel, and the caller's socket
		t.Errorf("the worker has %d sockets, want 2: %q", len(sockets), files)
	}
	for _, std := range []string{"0:/dev/null", "1:/dev/null"} {
		if !slices.Contains(files, std) {
			t.Errorf("the worker has no %s: %q", std, files)
		}
	}
}

// If a worker crashes, only its session is lost. The log has the worker's exit status and dump.
func TestCrashEndsItsSessionOnly(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	a, b := d.dial(), d.dial()
	pa, pb := a.pid(), b.pid()
	a.say("crash")
	a.told("died of a panic")
	if f := d.logged("session lost", 1); f["worker"] != int64(pa) {
		t.Errorf("the line about the lost session has %v; want worker %d", f, pa)
	}
	f := d.logged("worker ended unexpectedly", 1)
	if f["exit"] != "exit status 2" || f["sessions"] != int64(1) ||
		!strings.Contains(f["stderr"].(string), "panic: crash") {
		t.Errorf("the log's line about the crash has %v; want exit status 2, one session, "+
			"and the dump with \"panic: crash\"", f)
	}
	testkit.Must(t, unix.Kill(b.pid(), unix.SIGKILL))
	b.told("was killed (SIGKILL)")
	if f := d.logged("worker ended unexpectedly", 2); f["exit"] != "SIGKILL" ||
		f["worker"] != int64(pb) {
		t.Errorf("the log's line about the killed worker has %v; want SIGKILL and worker "+
			"%d", f, pb)
	}
	d.dial().pid()
}

// If a spare worker dies, the supervisor starts another one.
func TestDeadSpareIsReplaced(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Warm = 2 })
	for range 3 {
		var pids []int
		d.until("two spares are ready",
			func() bool { pids = d.poolPIDs(); return len(pids) == 2 })
		testkit.Must(t, unix.Kill(pids[0], unix.SIGKILL))
		d.until("the dead spare is replaced", func() bool {
			now := d.poolPIDs()
			return len(now) == 2 && !slices.Contains(now, pids[0])
		})
	}
	c := d.dial()
	c.pid()
}

// If no worker can start, the supervisor pauses between two attempts. A caller is told why it gets
// no worker.
func TestWorkersThatCannotStartAreNotTriedInALoop(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{ExitAtStart: true, LogAtStart: "no such library\n"}, nil)
	const ended = "worker ended unexpectedly"
	f := d.logged(ended, 3)
	if f["exit"] != "exit status 6" || f["stderr"] != "no such library\n" {
		t.Errorf("the log says %v; want the exit status 6 and the text", f)
	}
	ends := d.logs.FilterMessage(ended).All()
	if took := ends[2].Time.Sub(ends[0].Time); took < 200*time.Millisecond {
		t.Errorf("3 attempts within %v; want pauses between them", took)
	}
	line := d.dial().hear()
	if !strings.Contains(line, `"id":null`) || !strings.Contains(line, `"code":-32603`) || !strings.Contains(line, "exited with status 6, before it was ready") {
		t.Errorf("the caller is told %s; want an error with the id null and the code "+
			"-32603, which says how the worker exited", line)
	}
}

// A new session goes to the shared worker with the fewest sessions. If a shared worker dies, only
// its sessions are lost, and a new worker replaces it.
func TestSharedWorkersTakeTurns(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Shared, c.Warm = true, 2 })
	d.until("both workers are ready", func() bool { return len(d.poolPIDs()) == 2 })
	count := map[int]int{}
	var callers []*caller
	for range 6 {
		c := d.dial()
		count[c.pid()]++
		callers = append(callers, c)
	}
	for pid, n := range count {
		if n != 3 {
			t.Errorf("worker %d has %d sessions of 6; want 3", pid, n)
		}
	}
	victim := callers[0].pid()
	testkit.Must(t, unix.Kill(victim, unix.SIGKILL))
	callers[0].told("was killed (SIGKILL)")
	d.logged("session lost", 3)
	d.until("the dead worker is replaced", func() bool { return len(d.poolPIDs()) == 2 })
	alive := 0
	for _, c := range callers {
		if _, err := c.Write([]byte("who\n")); err == nil {
			if line, err := c.in.ReadString('\n'); err == nil &&
				strings.HasPrefix(line, "pid=") {
				alive++
			}
		}
	}
	if alive != 3 {
		t.Errorf("%d sessions live on after the death of a worker; want 3", alive)
	}
	for range 3 {
		if pid := d.dial().pid(); count[pid] != 0 {
			t.Errorf("a new session goes to worker %d, which has 3 sessions; want the "+
				"new worker, which has fewer", pid)
		}
	}
	// The end of a session does not end its shared worker.
	c := d.dial()
	pid := c.pid()
	c.say("bye")
	c.cut()
	d.logged("session ended", 1)
	testkit.Must(t, unix.Kill(pid, 0))
}

// A session above the limit --max-sessions is refused. When another session has ended, a new one is
// served.
func TestSessionsAreCounted(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.MaxSessions = 2 })
	a, b := d.dial(), d.dial()
	a.pid()
	b.pid()
	over := d.dial()
	if line := over.hear(); !strings.Contains(line, `"id":null`) || !strings.Contains(line, `"code":-32011`) || !strings.Contains(line, `"kind":"limit"`) {
		t.Errorf("2 sessions are allowed, and the third is told %s; want an error of kind "+
			"limit, with the id null and the code -32011", line)
	}
	over.cut()
	a.say("bye")
	a.cut()
	d.logged("session ended", 1)
	d.dial().pid()
}

// A session above a user's limit --max-sessions-per-uid is refused. Each user has a limit of its
// own.
func TestSessionsOfOneUserAreCounted(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.MaxSessionsPerUID = 2 })
	a, b := d.dial(), d.dial()
	a.pid()
	b.pid()
	over := d.dial()
	if line := over.hear(); !strings.Contains(line, `"id":null`) || !strings.Contains(line, `"kind":"limit"`) || !strings.Contains(line, "--max-sessions-per-uid") {
		t.Errorf("2 sessions of a user are allowed, and the third is told %s; want an "+
			"error of kind limit that names --max-sessions-per-uid", line)
	}
	over.cut()
	// Another user has a limit of its own. closeSession will subtract 1 from active. So the
	// test adds 1 before.
	d.mu.Lock()
	d.active++
	d.mu.Unlock()
	other, err := d.openSession(Peer{UID: 4321})
	if err != nil {
		t.Fatalf("another user is refused because of the first user's sessions: %v", err)
	}
	d.closeSession(other)
	a.say("bye")
	a.cut()
	d.dial().pid() // a caller whose session has ended can connect again at once
}

// Sessions begin, end, and are lost with their worker. At no time does a user have more open
// sessions than allowed. When all sessions have ended, the supervisor counts none.
func TestTheCountHoldsWhileSessionsComeAndGo(t *testing.T) {
	t.Parallel()
	const most = 3
	d := startDaemon(t, workerPlay{}, func(c *Config) {
		c.MaxSessionsPerUID, c.Shared, c.Warm = most, true, 2
	})
	var open, refused atomic.Int32
	var callers sync.WaitGroup
	for i := range 2 * most {
		callers.Go(func() {
			for round := range 20 {
				c := d.dial()
				c.Write([]byte("who\n")) // fails if the caller is refused already
				line, err := c.in.ReadString('\n')
				switch {
				case err != nil:
					t.Errorf("caller %d is told nothing: %v", i, err)
				case strings.HasPrefix(line, "pid="):
					if n := open.Add(1); n > most {
						t.Errorf("%d sessions are open, limit %d", n, most)
					}
					open.Add(-1)
					if i == 0 && round == 5 {
						c.Write([]byte("crash\n"))
						c.in.ReadString(0) // until the connection ends
					}
				case strings.Contains(line, `"kind":"limit"`):
					refused.Add(1)
				case strings.Contains(line, `"kind":"lost"`): // another session has crashed the worker
				default:
					t.Errorf("caller %d is told %s; want the pid of a worker, "+
						"or an error of kind limit or lost", i, line)
				}
				c.Close()
			}
		})
	}
	callers.Wait()
	if refused.Load() == 0 {
		t.Error("no caller was refused: the test shows nothing")
	}
	d.until("no session is counted any more", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.sessions == 0 && len(d.perUID) == 0
	})
}

// A daemon that stops removes its socket, so no new caller can connect. It ends when its sessions
// have ended.
func TestStopLetsSessionsFinish(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.pid()
	d.stop()
	d.until("the socket is removed",
		func() bool { _, err := os.Lstat(d.path); return errors.Is(err, fs.ErrNotExist) })
	if _, err := net.Dial("unix", d.path); err == nil {
		t.Error("the daemon stops, and a new caller can connect")
	}
	c.pid()
	select {
	case <-d.ended:
		t.Fatal("the daemon has ended before its session")
	default:
	}
	c.say("bye")
	c.cut()
	if err := d.wait(); err != nil {
		t.Errorf("all sessions have ended, and Run returns %v", err)
	}
}

// A daemon that stops waits at most for DrainTimeout. Then it orders its workers to end the
// sessions.
func TestDrainHasALimit(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{},
		func(c *Config) { c.DrainTimeout = 50 * time.Millisecond })
	c := d.dial()
	c.pid()
	d.stop()
	c.cut()
	if err := d.wait(); !errors.Is(err, ErrDrainTimeout) {
		t.Errorf("Run returns %v; want %v", err, ErrDrainTimeout)
	}
	d.logged("session ended", 1) // the worker has obeyed the order, and was not killed
}

// A daemon that is stopped by force does not wait for its sessions. It tells the callers that tlsd
// was stopped.
func TestForceEndsAtOnce(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	pid := c.pid()
	d.stop()
	d.logged("stopping", 1)
	d.force()
	c.told("has been ended, because tlsd was stopped")
	if err := d.wait(); !errors.Is(err, ErrForced) {
		t.Errorf("Run returns %v; want %v", err, ErrForced)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("worker %d is still there after Run: %v", pid, err)
	}
}

// A daemon that stops still serves callers that have connected and are not accepted yet. Its socket
// is removed, so no other daemon could serve them.
func TestCallersInTheQueueAreServedAtTheEnd(t *testing.T) {
	t.Parallel()
	// The daemon gets a socket whose deadline is over. It accepts nobody there until it stops,
	// so the callers wait in the socket's queue.
	socket, err := listenAt(testkit.Dir(t)+"/s", 0o600)
	testkit.Must(t, err)
	d := startDaemon(t, workerPlay{}, func(c *Config) {
		c.Socket.Remove()
		c.Socket.Close()
		c.Socket = socket
		socket.SetDeadline(time.Unix(1, 0))
	})
	d.path = socket.Path
	a, b := d.dial(), d.dial()
	d.stop()
	a.pid()
	b.pid()
	a.say("bye")
	b.say("bye")
	if err := d.wait(); err != nil {
		t.Errorf("all sessions have ended, and Run returns %v", err)
	}
}

// If systemd owns the socket, a daemon that stops does not accept the callers that have connected.
// They wait for the next daemon.
func TestCallersStayInTheQueueOfSystemdsSocket(t *testing.T) {
	t.Parallel()
	path := testkit.Dir(t) + "/s"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	testkit.Must(t, err)
	defer l.Close()
	f, err := l.File()
	testkit.Must(t, err)
	passed, err := net.FileListener(f)
	f.Close()
	testkit.Must(t, err)
	socket := &Socket{UnixListener: passed.(*net.UnixListener), Path: path}
	socket.SetUnlinkOnClose(false)
	d := startDaemon(t, workerPlay{}, func(c *Config) {
		c.Socket.Remove()
		c.Socket.Close()
		c.Socket = socket
		socket.SetDeadline(time.Unix(1, 0)) // in the past, so the daemon accepts no caller
	})
	d.path = path
	c := d.dial()
	d.stop()
	testkit.Must(t, d.wait())

	l.SetDeadline(time.Now().Add(testkit.Patience))
	next, err := l.Accept()
	testkit.Must(t, err)
	defer next.Close()
	c.say("still here")
	buf := make([]byte, 100)
	n, err := next.Read(buf)
	if string(buf[:n]) != "still here\n" || err != nil {
		t.Errorf("the next daemon reads %q, %v from the caller; want \"still here\\n\"",
			buf[:n], err)
	}
}

// A daemon with the setting IdleExit ends after it has had no session for the time IdleExit. It
// does not end while a session is open.
func TestIdleExit(t *testing.T) {
	t.Parallel()
	var c *caller
	d := startDaemon(t, workerPlay{}, func(cfg *Config) {
		cfg.IdleExit = 3 * time.Second
		c = dial(t, cfg.Socket.Path) // connects before Run starts its timer of IdleExit
	})
	c.pid()
	select {
	case <-d.ended:
		t.Fatal("the daemon has ended although a session is open")
	case <-time.After(4500 * time.Millisecond): // IdleExit passes while a session is open
	}
	other := d.dial() // the daemon still listens
	other.pid()
	other.Close()
	c.pid()
	c.say("bye")
	c.cut()
	if err := d.wait(); err != nil {
		t.Errorf("Run returns %v after IdleExit, want nil", err)
	}
	if f := d.logged("stopping", 1); f["why"] != "no session for 3s" {
		t.Errorf("the log says %v; want the reason of the stop", f)
	}
}

// If the daemon runs out of descriptors, open sessions go on, and new callers wait. The log is not
// flooded.
func TestDescriptorsRunOutWithoutHarm(t *testing.T) {
	// Not parallel: the limit of descriptors holds for the whole process.
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.pid()
	d.until("the spare is ready", func() bool { return len(d.poolPIDs()) == 1 })
	conn := d.dial() // before the limit is set, so the daemon has a descriptor for it
	conn.pid()
	d.until("the spare is ready", func() bool { return len(d.poolPIDs()) == 1 })

	waiting, err := sockets.New(unix.AF_UNIX, unix.SOCK_STREAM)
	testkit.Must(t, err)
	defer unix.Close(waiting)
	var old unix.Rlimit
	testkit.Must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	testkit.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}))
	err = unix.Connect(waiting, &unix.SockaddrUnix{Name: d.path})
	d.logged("connections cannot be accepted; tlsd keeps trying", 1)
	spins := d.logs.Len()
	testkit.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	testkit.Must(t, err)
	d.logged("connections can be accepted again", 1)
	if more := d.logs.Len() - spins; more > 5 {
		t.Errorf("%d lines are logged while connections cannot be accepted; want few", more)
	}
	d.logged("session started", 3)
	conn.pid()
	c.pid()
}

// A worker ends when its channel to the supervisor ends, so no worker outlives the daemon.
func TestWorkersGoWithTheirChannel(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	pid := c.pid()
	d.eachWorker(func(w *worker) { w.channel.CloseSend() })
	c.cut()
	d.until("the worker is gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
}

// The log says once, and not for each worker, that workers have no usable OpenSSL, and what they
// tried.
func TestFirstWorkerIsIntroduced(t *testing.T) {
	t.Parallel()
	play := workerPlay{}
	play.Report.Backend, play.Report.Error = "stub", "tried everything"
	d := startDaemon(t, play, func(c *Config) { c.Warm = 2 })
	d.dial().pid()
	const stub = "no usable OpenSSL: every TLS call will fail with an error that says so"
	if f := d.logged(stub, 1); f["tried"] != "tried everything" {
		t.Errorf("the log says %v; want what the worker tried", f)
	}
	if n := d.logs.FilterFieldKey("tried").Len(); n != 1 {
		t.Errorf("the log says %d times what was tried, want once", n)
	}
}
