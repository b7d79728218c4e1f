package admin

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/admin"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// An administrator lists sessions, ends a session, drains the daemon and changes the level of the
// log.

func TestSessionsAreListed(t *testing.T) {
	t.Parallel()
	d, e := start(t), startEcho(t)
	c := d.Dial(t)
	talk(t, c, e.connect(t, c), "hello")
	leaf := testcert.SelfSigned(t, testcert.Leaf{CN: "a server"})
	if _, err := c.NewServerContext(t.Context(), leaf.CertFile, leaf.KeyFile); err != nil {
		t.Fatal(err)
	}
	reading := make(chan error, 1)
	go func() { _, err := c.Read(t.Context(), 1, 10); reading <- err }()
	d.says([]string{"sessions"}, "tls.Read 1")

	// A worker has 2 s to answer. On a slow machine this may not be enough for one list.
	var list []admin.Session
	testkit.Until(t, "the session's worker answers", func() bool {
		list = nil
		decode(t, d.must("sessions", "--json"), &list)
		return len(list) != 1 || list[0].Known
	})
	if len(list) != 1 {
		t.Fatalf("tlsshim sessions lists %+v; want one session", list)
	}
	s := list[0]
	if s.Number != 1 || s.UID != uint32(os.Getuid()) || int(s.PID) != os.Getpid() ||
		s.Program == "" || s.Waits != "tls.Read 1" || !s.Known ||
		s.Connections != 1 || s.Contexts != 1 || s.Received != 5 || s.Sent != 5 ||
		s.Calls != 1 || len(s.Handles) != 2 {
		t.Errorf("the list has wrong facts about the session: %+v", s)
	}
	peer := testkit.Addr(e.port)
	if got := s.Handles[0]; got != (admin.Handle{Handle: 1, Kind: "client", State: "ready",
		Peer: peer, Received: 5, Sent: 5}) {
		t.Errorf("the list has wrong facts about the session's connection: %+v", got)
	}
	if got := s.Handles[1]; got.Kind != "context" {
		t.Errorf("the session's second handle is no server context: %+v", got)
	}
	for _, args := range [][]string{{"sessions"}, {"session", "1"}} {
		d.says(args, peer, "tls.Read 1", s.Program, fmt.Sprint(os.Getpid()))
		d.must(args...)
	}
	if got := d.shim("session", "2"); got.status != 1 ||
		!strings.Contains(got.stderr, "there is no session 2") {
		t.Errorf("tlsshim session 2, which does not exist: %+v; want status 1", got)
	}
	c.Close()
	<-reading
}

func TestBytesOnADataChannelAreCounted(t *testing.T) {
	t.Parallel()
	d, e := start(t), startEcho(t)
	c := d.Dial(t)
	if err := c.SetCaBundle(t.Context(), e.ca.File); err != nil {
		t.Fatal(err)
	}
	h, err := c.NewClient(t.Context(), e.host, e.port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.HandshakeConn(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	d.says([]string{"session", "1", "--json"}, `"received":5,"sent":5`)
}

func TestTheScriptOfAnEndedSessionIsTold(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"session", "shared"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			d, e := start(t, "--isolation="+isolation, "--workers=1"), startEcho(t)
			c := d.Dial(t)
			h := e.connect(t, c)
			other := d.Dial(t)
			theirs := e.connect(t, other)
			reading := make(chan error, 1)
			go func() { _, err := c.Read(t.Context(), h, 10); reading <- err }()
			d.says([]string{"session", "1"}, "tls.Read")

			if got := d.must("end", "1", "--reason",
				"it is\tin the way"); got != "session 1 has ended\n" {
				t.Errorf("tlsshim end prints %q, want that session 1 has "+
					"ended", got)
			}
			var lost *client.Error
			if err := <-reading; !errors.As(err, &lost) ||
				lost.Kind != client.KindLost ||
				!strings.Contains(lost.Message,
					`the administrator has ended this session: it is\tin the way`) {
				t.Errorf("the Read of the ended session fails with %v; "+
					"want kind lost, and the administrator's reason", err)
			}
			talk(t, other, theirs, "the other session goes on")
			again := d.Dial(t)
			talk(t, again, e.connect(t, again), "a new session can start")
			if log := d.Log(t); strings.Contains(log, "die in a row") ||
				strings.Contains(log, `"level":"error"`) ||
				!strings.Contains(log, `"msg":"administrator"`) ||
				!strings.Contains(log, `"method":"end"`) {
				t.Errorf("the log must have the administrator's line, "+
					"no error, and no worker's death: %s", log)
			}
		})
	}
}

func TestHealthDisturbsNobody(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.says([]string{"health"}, "healthy: tlsd", "1 spare")
	testkit.Until(t, "the log says that libssl is loaded",
		func() bool { return strings.Contains(d.Log(t), "library loaded") })
	log, processes := d.Log(t), d.Processes()
	for range 3 {
		if got := d.must("health"); !strings.HasPrefix(got, "healthy: tlsd") {
			t.Errorf("tlsshim health prints %q, want that tlsd is healthy", got)
		}
	}
	if after := d.Log(t); after != log {
		t.Errorf("tlsshim health has added lines to the log: %q",
			strings.TrimPrefix(after, log))
	}
	if after := d.Processes(); len(after) != 2 || fmt.Sprint(after) != fmt.Sprint(processes) {
		t.Errorf("tlsshim health has changed tlsd's processes from %v to %v; "+
			"want the same two", processes, after)
	}
	sick := start(t, "--libssl=/nonexistent/libssl.so")
	sick.says([]string{"health"}, "problem: no usable OpenSSL")
	if got := sick.shim("health"); got.status != 1 {
		t.Errorf("tlsshim health of a daemon without OpenSSL: %+v; want status 1", got)
	}
	nobody := &watched{t: t, admin: d.admin + "x"}
	if got := nobody.shim("health"); got.status != 3 ||
		!strings.Contains(got.stderr, "to mend it") {
		t.Errorf("tlsshim health without a daemon: %+v; want status 3", got)
	}
}

func TestDrainLetsSessionsFinish(t *testing.T) {
	t.Parallel()
	d, e := start(t, "--drain-timeout=10m"), startEcho(t)
	c := d.Dial(t)
	h := e.connect(t, c)
	if got := d.must("drain"); !strings.Contains(got, "waits for 1 sessions") {
		t.Errorf("tlsshim drain prints %q, want that it waits for 1 sessions", got)
	}
	d.says([]string{"health"}, "problem: tlsd is stopping")
	if got := d.shim("health"); got.status != 1 {
		t.Errorf("tlsshim health during a drain: %+v; want status 1", got)
	}
	talk(t, c, h, "the session goes on")
	d.says([]string{"sessions"}, "127.0.0.1") // the list still has the session and its peer
	d.must("sessions")
	c.Close()
	<-d.Exited() // a cleanup of testd checks the exit status
	if _, err := os.Lstat(d.admin); !os.IsNotExist(err) {
		t.Errorf("tlsd has ended, so its admin socket must not exist; Lstat: %v", err)
	}
}

func TestTheLogLevelIsChanged(t *testing.T) {
	t.Parallel()
	d := start(t)
	if got := d.must("log-level"); got != "info\n" {
		t.Errorf("the level at the start is %q, want info", got)
	}
	if got := d.must("log-level", "debug"); got != "debug\n" {
		t.Errorf("tlsshim log-level debug prints the level %q, want debug", got)
	}
	d.Dial(t).Close()
	testkit.Until(t, "the log has a line of level debug",
		func() bool { return strings.Contains(d.Log(t), `"level":"debug"`) })
	d.must("log-level", "error")
	c := d.Dial(t) // this session's worker must learn each new level
	if err := syscall.Kill(d.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.says([]string{"log-level"}, "info\n")
	e := startEcho(t)
	// tlsd changes its own level first, and then tells its workers. So the worker may not log
	// the first handshakes.
	testkit.Until(t, "the log has a handshake, which workers log at level info", func() bool {
		talk(t, c, e.connect(t, c), "hello")
		return strings.Contains(d.Log(t), `"msg":"handshake"`)
	})
	if got := d.shim("log-level", "loud"); got.status != 1 ||
		!strings.Contains(got.stderr, "want one of debug, info, warn, error") {
		t.Errorf("tlsshim log-level loud: %+v; want status 1, and the levels' names", got)
	}
}

func TestTheAdminSocketIsForOneUser(t *testing.T) {
	t.Parallel()
	d := start(t, "--socket-mode=0666")
	info, err := os.Stat(d.admin)
	testkit.Must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the admin socket has the mode %v; want 0600", info.Mode())
	}
}
