package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"tlsd/internal/sockets"
	"tlsd/internal/testkit"
)

// daemon is a running Supervisor.
type daemon struct {
	*Supervisor
	t    *testing.T
	path string
	logs *observer.ObservedLogs

	stop  context.CancelFunc
	force func()
	ended chan struct{}
	err   error // the result of Run, valid after ended is closed
}

// startDaemon runs a Supervisor until the test ends. If configure is not nil, it changes the
// Supervisor's configuration before the start.
func startDaemon(t *testing.T, play workerPlay, configure func(*Config)) *daemon {
	t.Helper()
	path := filepath.Join(testkit.Dir(t), "s")
	socket, err := listenAt(path, 0o600)
	testkit.Must(t, err)
	settings, err := json.Marshal(play)
	testkit.Must(t, err)
	core, logs := observer.New(zapcore.DebugLevel)
	cfg := Config{
		Log: zap.New(core), Socket: socket, WorkerConfig: settings,
		Warm: 1, MaxSessions: 100, DrainTimeout: testkit.Patience,
	}
	if configure != nil {
		configure(&cfg)
	}
	ctx, stop := context.WithCancel(context.Background())
	force := make(chan struct{})
	d := &daemon{
		Supervisor: New(cfg), t: t, path: path, logs: logs,
		stop: stop, force: sync.OnceFunc(func() { close(force) }),
		ended: make(chan struct{}),
	}
	d.answerTime = testkit.Patience
	go func() { defer close(d.ended); d.err = d.Run(ctx, force) }()
	t.Cleanup(func() {
		d.stop()
		d.force()
		d.wait()
		if t.Failed() {
			for _, e := range logs.All() {
				t.Log(e.Level, e.Message, e.ContextMap())
			}
		}
	})
	return d
}

// wait waits until Run has returned, and returns the error of Run.
func (d *daemon) wait() error {
	d.t.Helper()
	select {
	case <-d.ended:
		return d.err
	case <-time.After(testkit.Patience):
		d.t.Fatal("the daemon does not end: Run has not returned")
		return nil
	}
}

// until waits until cond returns true. If this takes too long, the test fails and names the event.
func (d *daemon) until(event string, cond func() bool) {
	d.t.Helper()
	testkit.Until(d.t, event, cond)
}

// logged waits until the log has n entries with this text, and returns the fields of the nth.
func (d *daemon) logged(text string, n int) map[string]any {
	d.t.Helper()
	d.until(fmt.Sprintf("the log has %d entries %q", n, text),
		func() bool { return d.logs.FilterMessage(text).Len() >= n })
	return d.logs.FilterMessage(text).All()[n-1].ContextMap()
}

// poolPIDs returns the pids of the workers in the pool that are ready.
func (d *daemon) poolPIDs() (pids []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.pool {
		select {
		case <-w.ready:
			pids = append(pids, w.pid)
		default:
		}
	}
	return pids
}

// caller is the program at the other end of a session.
type caller struct {
	*net.UnixConn
	t  *testing.T
	in *bufio.Reader
}

func (d *daemon) dial() *caller {
	d.t.Helper()
	return dial(d.t, d.path)
}

// dial connects to a socket. The connection succeeds even if no daemon serves the socket yet.
func dial(t *testing.T, path string) *caller {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	testkit.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	return &caller{conn, t, bufio.NewReader(conn)}
}

// say sends a line.
func (c *caller) say(line string) {
	c.t.Helper()
	c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := fmt.Fprintln(c, line); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a line and returns the answer.
func (c *caller) ask(line string) string {
	c.t.Helper()
	c.say(line)
	return c.hear()
}

// hear reads a line.
func (c *caller) hear() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// pid asks for the pid of the worker.
func (c *caller) pid() (pid int) {
	c.t.Helper()
	if _, err := fmt.Sscanf(c.ask("who"), "pid=%d", &pid); err != nil {
		c.t.Fatal("the worker's answer to who has no pid:", err)
	}
	return pid
}

// told reads the line that says that the session is lost. The line must name the cause, and the
// connection must end after it.
func (c *caller) told(cause string) {
	c.t.Helper()
	want := `{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"lost: the worker of this session ` + cause + `","data":{"kind":"lost"}}}`
	if got := c.hear(); got != want {
		c.t.Fatalf("the caller is told\n%s\nwant\n%s", got, want)
	}
	c.cut()
}

// cut waits for the end of the connection. No line may come before the end.
func (c *caller) cut() {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
		c.t.Fatalf("the connection must end; instead the caller reads %q, %v", line, err)
	}
}

// dialFrom connects as another user. The user's group has the same number as the user.
func (d *daemon) dialFrom(uid int) *net.UnixConn { return d.dialAs(uint32(uid), uint32(uid)) }

// dialAs connects as another user and with another group.
func (d *daemon) dialAs(uid, gid uint32) *net.UnixConn {
	d.t.Helper()
	conns := make(chan *net.UnixConn, 1)
	go func() {
		// The daemon sees the user of the thread that connects. The goroutine keeps the
		// thread, so the thread ends with it and serves no other goroutine.
		runtime.LockOSThread()
		if err := threadAs(uid, gid); err != nil {
			d.t.Error(err)
			close(conns)
			return
		}
		fd, err := sockets.New(unix.AF_UNIX, unix.SOCK_STREAM)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: d.path})
		}
		if err != nil {
			d.t.Error(err)
			close(conns)
			return
		}
		conns <- connOfFD(d.t, fd)
	}()
	conn := <-conns
	if conn == nil {
		d.t.FailNow()
	}
	return conn
}

// connOfFD makes a connection from a descriptor, which belongs to the connection from then on. The
// end of the test closes the connection.
func connOfFD(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	return testkit.UnixConn(t, os.NewFile(uintptr(fd), "connection"))
}
