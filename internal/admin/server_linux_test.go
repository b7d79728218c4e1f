package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/rpc/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// played is a stand-in for a daemon. Its answers are fixed.
type played struct {
	mu      sync.Mutex
	orders  []string
	denied  []Client
	entered chan struct{} // gets a value when End waits
	release chan struct{} // ends End's wait
}

func (p *played) Sessions(context.Context) []Session { return []Session{{Number: 7}} }
func (p *played) Session(_ context.Context, n uint64) (Session, error) {
	if n != 7 {
		return Session{}, Fail(kind.Params, "there is no session %d", n)
	}
	return Session{Number: n}, nil
}
func (p *played) End(ctx context.Context, _ uint64, _ string) error {
	p.entered <- struct{}{}
	select {
	case <-p.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
func (p *played) LogLevel(level string) (string, error) { return level + "!", nil }
func (p *played) Drain() int                            { return 3 }
func (p *played) Health() Health                        { return Health{Healthy: true} }
func (p *played) Metrics() []Family                     { return []Family{{Name: "m"}} }

// serve serves a played daemon until the test ends, and returns the path of its socket.
func serve(t *testing.T) (*played, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	// Each user can connect, so the server alone decides which users it serves.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	p := &played{entered: make(chan struct{}, 1), release: make(chan struct{})}
	s := &Server{
		Listener: l, Daemon: p,
		Ordered: func(_ Client, method, asked string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.orders = append(p.orders, method+" "+asked)
		},
		Denied: func(who Client) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.denied = append(p.denied, who)
		},
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case <-served:
		case <-time.After(testkit.Patience):
			t.Error("the server's context has ended, but Run does not return")
		}
	})
	return p, path
}

func ask(t *testing.T, path, method string, params, result any) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	return Ask(ctx, path, method, params, result)
}

// The server answers each method. It calls Ordered for requests that change something, and for no
// others.
func TestEachMethodIsAnswered(t *testing.T) {
	t.Parallel()
	p, path := serve(t)
	close(p.release)
	for _, c := range []struct {
		method string
		params any
		want   string
	}{
		{MethodSessions, nil, `"number":7`},
		{MethodSession, SessionParams{7}, `"number":7`},
		{MethodEnd, EndParams{7, "so"}, `{"number":7}`},
		{MethodLogLevel, LogLevelParams{"debug"}, `{"level":"debug!"}`},
		{MethodLogLevel, nil, `{"level":"!"}`},
		{MethodDrain, nil, `{"sessions":3}`},
		{MethodHealth, nil, `"healthy":true`},
		{MethodMetrics, nil, `"name":"m"`},
	} {
		var got json.RawMessage
		if err := ask(t, path, c.method, c.params, &got); err != nil ||
			!strings.Contains(string(got), c.want) {
			t.Errorf("%s: %s, %v; want %s", c.method, got, err, c.want)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	got := strings.Join(p.orders, "; ")
	if got != "end session 7: so; log-level debug; drain " {
		t.Errorf("Ordered is called for %q; want end, log-level with a level, and drain",
			got)
	}
}

func TestBadRequestsAreExplained(t *testing.T) {
	t.Parallel()
	p, path := serve(t)
	for _, c := range []struct{ line, want string }{
		{`nonsense`, "cannot be read"},
		{`{"jsonrpc":"2.0","method":"health"}`, "an id"},
		{`{"jsonrpc":"1.0","id":1,"method":"health"}`, "JSON-RPC 2.0"},
		{`{"jsonrpc":"2.0","id":1,"method":"halt"}`, "there is no method"},
		{`{"jsonrpc":"2.0","id":1,"method":"session","params":{"number":8}}`,
			"there is no session 8"},
		{`{"jsonrpc":"2.0","id":1,"method":"session","params":{"numbr":7}}`,
			"unknown field"},
		{`{"jsonrpc":"2.0","id":1,"method":"session","params":[7]}`, "cannot be read"},
		{`{"jsonrpc":"2.0","id":1,"method":"end","params":{"number":7}}`,
			"the reason has 0 bytes"},
		{`{"jsonrpc":"2.0","id":1,"method":"end","params":{"number":7,"reason":"` +
			strings.Repeat("x", MaxReason+1) + `"}}`, "the reason has 513 bytes"},
		{`{"jsonrpc":"2.0","id":1,"method":"log-level","params":{"level":"fatal"}}`,
			"want one of debug, info, warn, error"},
		{strings.Repeat("x", MaxRequest+1), "the request has more than 16384 bytes"},
	} {
		conn := dial(t, path)
		if _, err := conn.Write([]byte(c.line + "\n")); err != nil {
			t.Fatal(err)
		}
		var res wire.Response
		if line := hear(t, conn); json.Unmarshal([]byte(line), &res) != nil ||
			res.Error == nil || !strings.Contains(res.Error.Message, c.want) ||
			res.Error.Data.Kind != kind.Params {
			t.Errorf("%.80s: %s; want an error of kind params with %q", c.line, line,
				c.want)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.orders) != 0 {
		t.Errorf("Ordered is called for bad requests: %q", p.orders)
	}
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	return conn
}

func hear(t *testing.T, conn net.Conn) string {
	t.Helper()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return line
}

// Slow clients do not delay others. Some send nothing, one sends requests and reads no answer, and
// one waits for an answer.
func TestSlowClientsHoldUpNobody(t *testing.T) {
	t.Parallel()
	p, path := serve(t)
	// At most three of the clients below are connected at the same time. But a client that has
	// left still counts for a moment. So six places stay free.
	for range MaxClients - 6 {
		dial(t, path)
	}
	// The server cannot write another answer to this client, because all answers that fit are
	// unread.
	deaf := dial(t, path)
	const health = `{"jsonrpc":"2.0","id":1,"method":"health"}` + "\n"
	_, err := io.WriteString(deaf, health)
	testkit.Must(t, err)
	full := testkit.FullQueue(t, len(hear(t, deaf)))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(deaf, strings.Repeat(health, full)) // fails when deaf is closed
	}()
	defer func() { deaf.Close(); <-sent }()
	testkit.Until(t, "the server cannot write to the client that reads nothing",
		func() bool { return testkit.Unread(t, deaf.(*net.UnixConn)) >= full })
	ended := make(chan error, 1)
	go func() {
		ended <- Ask(context.Background(), path, MethodEnd, EndParams{7, "x"},
			new(Ended))
	}()
	<-p.entered
	for range 3 {
		var h Health
		if err := ask(t, path, MethodHealth, nil, &h); err != nil || !h.Healthy {
			t.Fatalf("beside slow clients, health is answered with %+v, %v; want the "+
				"answer healthy", h, err)
		}
	}
	close(p.release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The server serves at most MaxClients clients at a time. It refuses one more with an error of kind
// limit.
func TestClientsAreCounted(t *testing.T) {
	t.Parallel()
	_, path := serve(t)
	for range MaxClients {
		conn := dial(t, path)
		conn.Write([]byte(`{"jsonrpc":"2.0","id":1,"method":"health"}` + "\n"))
		hear(t, conn)
	}
	var refused *wire.Error
	if err := ask(t, path, MethodHealth, nil, new(Health)); !errors.As(err, &refused) ||
		refused.Data.Kind != kind.Limit {
		t.Errorf("one client too many gets %v; want an error of kind limit", err)
	}
}

func TestOnlyRootAndTheDaemonsUserAreServed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to connect as another user")
	}
	p, path := serve(t)
	errs := make(chan error, 1)
	go func() {
		// The server sees the user of the thread that connects. The goroutine does not
		// unlock the thread, so no other goroutine runs as this user.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 4711, 4711,
			4711); errno != 0 {
			errs <- errno
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			errs <- err
			return
		}
		f := os.NewFile(uintptr(fd), "connection")
		conn, err := net.FileConn(f)
		f.Close()
		if err == nil {
			err = exchange(conn, MethodDrain, nil, new(Draining))
			conn.Close()
		}
		errs <- err
	}()
	var refused *wire.Error
	if err := <-errs; !errors.As(err, &refused) || refused.Data.Kind != kind.Denied {
		t.Errorf("another user gets %v; want an error of kind denied", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.denied) != 1 || p.denied[0].UID != 4711 || len(p.orders) != 0 {
		t.Errorf("Denied is called for %v, Ordered for %q; want one call of Denied",
			p.denied, p.orders)
	}
}

// An answer has < as it is, and not as \u003c. So a peer's text cannot make an answer six times
// longer.
func TestAnswersHaveNoEscapesForHTML(t *testing.T) {
	t.Parallel()
	for _, line := range [][]byte{
		answer(nil, Session{Program: "<&>"}, nil), answer(nil, nil, errors.New("<&>")),
	} {
		if !strings.Contains(string(line), `"<&>"`) || !json.Valid(line) ||
			strings.HasSuffix(string(line), "\n") {
			t.Errorf("the answer is %q; want JSON with \"<&>\", and no line feed at "+
				"its end", line)
		}
	}
}
