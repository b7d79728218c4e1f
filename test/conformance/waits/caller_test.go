package waits

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/openssl"
	"tlsd/rpc"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// slowName returns a name that no test has looked up. (Go joins look-ups of the same name that run
// at the same time. If a caller gives up, the joined look-up goes on until the resolver's own
// timeouts.)
func slowName() string { return fmt.Sprintf("slow%d.invalid", names.Add(1)) }

var names atomic.Int32

// TestMain makes sure that a look-up of a name that is not in /etc/hosts gets no answer.
func TestMain(m *testing.M) {
	net.DefaultResolver = &net.Resolver{PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	goleak.VerifyTestMain(m)
}

// counting is an engine that counts its contexts and connections that are not freed yet.
type counting struct {
	session.Engine
	open  atomic.Int64
	small atomic.Bool // the sockets of clients get a small buffer for sending
}

func load(t *testing.T) *openssl.Library {
	t.Helper()
	lib, err := openssl.Load(os.Getenv("TLSD_TEST_LIBSSL"))
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func (e *counting) NewClientContext(b session.CABundle) (session.EngineContext, error) {
	return e.context(e.Engine.NewClientContext(b))
}

func (e *counting) NewServer(cfg openssl.ServerConfig) (session.EngineContext, error) {
	return e.context(e.Engine.NewServer(cfg))
}

func (e *counting) context(c session.EngineContext, err error) (session.EngineContext, error) {
	if err != nil {
		return nil, err
	}
	e.open.Add(1)
	return countedContext{c, e}, nil
}

type countedContext struct {
	session.EngineContext
	e *counting
}

func (c countedContext) Free() {
	c.EngineContext.Free()
	c.e.open.Add(-1)
}

func (c countedContext) Client(nc *net.TCPConn, host string) (session.EngineConn, error) {
	if c.e.small.Load() {
		nc.SetWriteBuffer(4 << 10)
	}
	return c.conn(c.EngineContext.Client(nc, host))
}

func (c countedContext) Server(nc *net.TCPConn) (session.EngineConn, error) {
	return c.conn(c.EngineContext.Server(nc))
}

func (c countedContext) conn(conn session.EngineConn, err error) (session.EngineConn, error) {
	if err != nil {
		return nil, err
	}
	c.e.open.Add(1)
	return countedConn{conn, c.e}, nil
}

type countedConn struct {
	session.EngineConn
	e *counting
}

func (c countedConn) CloseContext(ctx context.Context) error {
	defer c.e.open.Add(-1)
	return c.EngineConn.CloseContext(ctx)
}

func (c countedConn) CutContext(ctx context.Context) error {
	defer c.e.open.Add(-1)
	return c.EngineConn.CutContext(ctx)
}

func (c countedConn) Abort() error {
	defer c.e.open.Add(-1)
	return c.EngineConn.Abort()
}

// A caller is the caller's end of a session. The test also serves the session, in its own process.
type caller struct {
	t    *testing.T
	way  way
	cert *testcert.Cert
	conn net.Conn
	stop context.CancelFunc // cancels the context.Context of Serve

	eng    *counting
	served chan struct{} // closed when Serve has returned
	err    error         // what Serve has returned

	id int // of the last call

	mu      sync.Mutex
	answers map[string]chan answer
	over    chan struct{} // closed when there are no more answers
}

type answer struct {
	result string
	err    *wire.Error
}

// newCaller starts a session in which a wait will be ended in the way w.
func newCaller(t *testing.T, lib *openssl.Library, cert *testcert.Cert, w way,
	bounds session.Timeouts) *caller {
	t.Helper()
	ours, theirs := testkit.UnixPair(t)
	ours.SetDeadline(time.Now().Add(10 * testkit.Patience))
	ctx, stop := context.WithCancel(context.Background())
	c := &caller{
		t: t, way: w, cert: cert, conn: ours, stop: stop,
		eng: &counting{Engine: session.OpenSSL(lib)}, served: make(chan struct{}),
		answers: map[string]chan answer{}, over: make(chan struct{}),
	}
	go func() {
		defer close(c.served)
		c.err = rpc.Serve(ctx, theirs,
			rpc.Config{Session: session.Config{Engine: c.eng, Timeouts: bounds}})
	}()
	go c.listen()
	t.Cleanup(func() {
		c.conn.Close()
		c.ended()
		stop()
		<-c.over
	})
	return c
}

// listen distributes the answers.
func (c *caller) listen() {
	defer close(c.over)
	r := wire.NewReader(c.conn, wire.MaxLine)
	for {
		line, err := r.Line()
		if err != nil {
			return
		}
		var list []wire.Response
		if line[0] != '[' {
			list = make([]wire.Response, 1)
			err = json.Unmarshal(line, &list[0])
		} else {
			err = json.Unmarshal(line, &list)
		}
		if err != nil {
			c.t.Errorf("an answer is not a JSON-RPC response: %v in %s", err, line)
			return
		}
		for _, a := range list {
			select {
			case c.at(string(a.ID)) <- answer{string(a.Result), a.Error}:
			default:
				c.t.Errorf("a call got a second answer: %s", line)
			}
		}
	}
}

// c.at(id) returns the channel for the answer to the call with this id.
func (c *caller) at(id string) chan answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers[id] == nil {
		c.answers[id] = make(chan answer, 1)
	}
	return c.answers[id]
}

func (c *caller) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// call sends a call and returns its id.
func (c *caller) call(method, params string) string {
	c.t.Helper()
	c.id++
	c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}`+"\n", c.id,
		method, params))
	return fmt.Sprint(c.id)
}

// write sends a tls.Write of n bytes.
func (c *caller) write(handle, n int) string {
	c.t.Helper()
	return c.call("tls.Write",
		fmt.Sprintf(`[%d,"%s"]`, handle,
			base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{'x'}, n))))
}

// notify sends a notification.
func (c *caller) notify(method, params string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"%s","params":%s}`+"\n", method, params))
}

// answer waits for the answer to a call.
func (c *caller) answer(id string) answer {
	c.t.Helper()
	return testkit.Receive(c.t, c.at(id), "the answer to call "+id)
}

// kind is how the call has ended: "ok", or the kind of its error.
func (a answer) kind() string {
	if a.err == nil {
		return ok
	}
	return string(a.err.Data.Kind)
}

func (c *caller) ok(method, params string) string {
	c.t.Helper()
	a := c.answer(c.call(method, params))
	if a.err != nil {
		c.t.Fatalf("%s%s must succeed: %v", method, params, a.err)
	}
	return a.result
}

// settle returns when every request that was sent has begun.
func (c *caller) settle() { c.t.Helper(); c.ok("tls.Backend", "[]") }

// ended waits for the end of Serve, and checks that all objects of the session are freed.
func (c *caller) ended() {
	c.t.Helper()
	testkit.Receive(c.t, c.served, "the session ends")
	if n := c.eng.open.Load(); n != 0 {
		c.t.Errorf("the session has ended without freeing %d contexts and connections", n)
	}
	// The caller may have closed its socket before it has read everything.
	if c.err != nil && !errors.Is(c.err, context.Canceled) &&
		!errors.Is(c.err, syscall.ECONNRESET) {
		c.t.Errorf("Serve returned %v; want nil, a cancelled context or ECONNRESET", c.err)
	}
}

// bound calls tls.SetTimeout on the handle, if this is the way in which the test ends the wait.
func (c *caller) bound(handle int) {
	c.t.Helper()
	if c.way == byHandle {
		c.call("tls.SetTimeout", fmt.Sprintf("[%d,%d]", handle, moment.Milliseconds()))
	}
}

// open connects to a peer. The connection is handle 1.
func (c *caller) open(peer func(*net.TCPConn)) {
	c.t.Helper()
	port := testkit.Serve(c.t, func(nc net.Conn) { peer(nc.(*net.TCPConn)) })
	c.ok("tls.NewClient", fmt.Sprintf(`["localhost",%d]`, port))
	c.ok("tls.SetInsecureSkipVerify", "[1,1]")
}

// silent calls open, with a peer that neither reads nor writes.
func (c *caller) silent() {
	c.t.Helper()
	c.open(func(nc *net.TCPConn) {
		nc.SetReadBuffer(4 << 10)
		<-c.t.Context().Done()
	})
}

// ready calls open, and both sides do their handshakes. After its handshake the peer calls act with
// the TCP connection, unless act is nil. The connection remains open until the test ends.
func (c *caller) ready(act func(*net.TCPConn)) {
	c.t.Helper()
	c.openServer(act)
	c.ok("tls.Handshake", "[1]")
}

// openServer is like ready, but our side does no handshake.
func (c *caller) openServer(act func(*net.TCPConn)) {
	c.t.Helper()
	c.open(func(nc *net.TCPConn) {
		nc.SetReadBuffer(4 << 10)
		p := tls.Server(nc, c.cert.Config())
		if p.Handshake() == nil && act != nil {
			act(nc)
		}
		<-c.t.Context().Done()
	})
}

// callWithChannel sends a call with one end of a new data channel. It returns the call's id, and
// the caller's end of the channel.
func (c *caller) callWithChannel(method, params string) (id string, ours net.Conn) {
	c.t.Helper()
	f, theirs := testkit.SocketPair(c.t, unix.SOCK_STREAM)
	ours = testkit.UnixConn(c.t, f)
	c.id++
	line := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}`+"\n",
		c.id, method, params)
	_, _, err := c.conn.(*net.UnixConn).WriteMsgUnix(line,
		unix.UnixRights(int(theirs.Fd())), nil)
	theirs.Close()
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprint(c.id), ours
}

// full is like ready, but the connection has a data channel. The caller has written more bytes to
// the channel than the peer can receive.
func (c *caller) full() {
	c.t.Helper()
	c.eng.small.Store(true)
	c.openServer(nil)
	id, ours := c.callWithChannel("tls.Handshake", "[1,1]")
	if a := c.answer(id); a.err != nil {
		c.t.Fatal(a.err)
	}
	c.bound(1)
	if _, err := ours.Write(make([]byte, tooMuch)); err != nil {
		c.t.Fatal(err)
	}
}

// tooMuch is a number of bytes that fits into a data channel. The buffers of the TCP connection
// take less, even together with the piece that the worker is sending. So bytes remain in the
// channel.
const tooMuch = 150 << 10

// server makes a server context, which is handle 1, and returns a free port.
func (c *caller) server() (port int) {
	c.t.Helper()
	c.ok("tls.NewServerContext", fmt.Sprintf("[%q,%q]", c.cert.CertFile, c.cert.KeyFile))
	return testkit.Port(c.t)
}

// dial makes a TCP connection as soon as somebody listens on the port. It sends the text, and
// nothing more.
func (c *caller) dial(port int, text string) {
	c.t.Helper()
	for end := time.Now().Add(testkit.Patience); ; time.Sleep(time.Millisecond) {
		nc, err := net.Dial("tcp", testkit.Addr(port))
		if err == nil {
			c.t.Cleanup(func() { nc.Close() })
			io.WriteString(nc, text)
			return
		}
		if time.Now().After(end) {
			c.t.Fatal("nobody listens on the port to which the test wants to connect")
		}
	}
}
