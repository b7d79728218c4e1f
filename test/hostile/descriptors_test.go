package hostile

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// If no descriptor is free, only the call or the session that needs a descriptor fails.

const backend = `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}` + "\n"

// If the daemon has no descriptor left, it cannot accept callers, but its sessions go on. When a
// descriptor is free again, the daemon serves the callers that have waited.
func TestNoDescriptorToAcceptACaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	overModes(t, nil, func(t *testing.T, d *testd.Daemon) {
		tk := w.talk(t, d.Dial(t), port)
		serves(t, d)
		before := len(testkit.OpenFiles(t, d.PID))
		restore := testkit.LeaveDescriptors(t, d.PID, 0)
		late := rawDial(t, d) // waits in the kernel's queue
		testkit.Until(t, "the log says that callers cannot be accepted", func() bool {
			return strings.Contains(d.Log(t), "connections cannot be accepted")
		})
		tk.works(t)
		restore()
		_, err := io.WriteString(late, backend)
		testkit.Must(t, err)
		testkit.Must(t, late.CloseWrite())
		if got, err := io.ReadAll(late); err != nil ||
			!strings.Contains(string(got), `"result":"openssl"`) {
			t.Errorf("the caller that has waited gets %q, %v; want an answer", got,
				err)
		}
		serves(t, d)
		tk.works(t)
		settled(t, d.PID, before)
	})
}

// If the daemon has descriptors to accept a caller, but not to start a worker, the caller gets an
// error with this reason.
func TestNoDescriptorToStartAWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	d := testd.Start(t, "--spare=0")
	tk := w.talk(t, d.Dial(t), port)
	serves(t, d)
	workers(t, d, 1)
	before := len(testkit.OpenFiles(t, d.PID))
	for free := 1; free <= 7; free++ { // the start of a worker needs more than 7
		restore := testkit.LeaveDescriptors(t, d.PID, free)
		conn := rawDial(t, d)
		got, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(got), `"kind":"internal"`) ||
			!strings.Contains(string(got), "too many open files") {
			t.Errorf("with %d free descriptors the caller gets %q, %v; "+
				"want kind internal, and \"too many open files\"", free, got, err)
		}
		tk.works(t)
		restore()
		conn.Close()
	}
	serves(t, d)
	workers(t, d, 1)
	settled(t, d.PID, before)
}

// If a worker has no descriptor left, a call that must accept, connect or open a file fails, and
// its error gives this reason. The session's connections go on. Calls succeed again as soon as
// descriptors are free.
func TestNoDescriptorInAWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	echo, _ := w.echo(t)
	overModes(t, nil, func(t *testing.T, d *testd.Daemon) {
		ctx := testkit.Bounded(t)
		c := d.Dial(t)
		tk := w.talk(t, c, echo)
		sc, err := c.NewServerContext(ctx, w.cert.CertFile, w.cert.KeyFile)
		testkit.Must(t, err)
		port := testkit.Port(t)
		pid := workerOf(t, c)
		before := len(testkit.OpenFiles(t, pid)) + 1 // 1 for the listener
		accept := func() <-chan error {
			ended := make(chan error, 1)
			go func() {
				h, err := c.Accept(ctx, sc, "127.0.0.1", port)
				if err == nil {
					err = c.CloseConn(ctx, h)
				}
				ended <- err
			}()
			return ended
		}
		first := accept()
		testd.AwaitListener(t, port)
		testkit.Must(t, visit(w, port))
		testkit.Must(t, <-first)
		settled(t, pid, before) // the connection of the visit is closed

		restore := testkit.LeaveDescriptors(t, pid, 0)
		waiting := accept()
		visited := make(chan error, 1)
		go func() { visited <- visit(w, port) }()
		failed(t, <-waiting, client.KindIO, "EMFILE", "too many open files",
			testkit.Addr(port))
		_, err = c.NewClient(ctx, "127.0.0.1", echo)
		failed(t, err, client.KindConnect, "EMFILE", "too many open files",
			testkit.Addr(echo))
		_, err = c.NewClient(ctx, "localhost", echo)
		failed(t, err, client.KindConnect, "too many open files", "localhost")
		failed(t, c.SetCaBundle(ctx, w.ca.File), client.KindFile, "EMFILE",
			"too many open files", w.ca.File)
		_, err = c.NewServerContext(ctx, w.cert.CertFile, w.cert.KeyFile)
		failed(t, err, client.KindFile, "EMFILE", "too many open files", w.cert.CertFile)
		_, err = c.Accept(ctx, sc, "127.0.0.1", testkit.Port(t))
		failed(t, err, client.KindConnect, "EMFILE", "too many open files")
		tk.works(t)
		restore()

		// Now an Accept takes the client that has waited. After a failure tlsd waits for
		// 100 ms before it tries again. An Accept in this time gets the error of the
		// failure, so a second Accept takes the client.
		err = <-accept()
		var e *client.Error
		if errors.As(err, &e) && e.Data.Errno == "EMFILE" {
			err = <-accept()
		}
		testkit.Must(t, err)
		testkit.Must(t, <-visited)
		w.talk(t, c, echo)
		tk.works(t)
		settled(t, pid, before+1) // 1 for the new connection
	})
}

// visit plays a good client of an accepting session. The session must end the connection after the
// handshake.
func visit(w *world, port int) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: testkit.Patience}, "tcp",
		testkit.Addr(port), &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("the client's Read returns %v, want io.EOF", err)
	}
	return nil
}

// If a shared worker has no descriptor for a new session, it refuses the session, and goes on with
// its other sessions.
func TestNoDescriptorForASession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	d := testd.Start(t, modes["shared"]...)
	c := d.Dial(t)
	tk := w.talk(t, c, port)
	pid := workerOf(t, c)
	for free := range 2 {
		restore := testkit.LeaveDescriptors(t, pid, free)
		got, err := io.ReadAll(rawDial(t, d))
		if err != nil || !strings.Contains(string(got), `"kind":"limit"`) ||
			!strings.Contains(string(got), "RLIMIT_NOFILE") {
			t.Errorf("with %d free descriptors the caller gets %q, %v; "+
				"want kind limit, and RLIMIT_NOFILE", free, got, err)
		}
		tk.works(t)
		restore()
	}
	serves(t, d)
	if now := workerOf(t, c); now != pid || unix.Kill(pid, 0) != nil {
		t.Errorf("the session's worker was process %d, and now is %d; want the same, alive",
			pid, now)
	}
}
