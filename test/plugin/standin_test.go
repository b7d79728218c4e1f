package plugin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// A standIn listens in tlsd's place. It does nothing by itself: the test takes its connections and
// gives each answer word for word.
type standIn struct {
	t    *testing.T
	path string
	ln   *net.UnixListener
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	return standInAt(t, filepath.Join(nowhere(t), "tlsd.sock"))
}

func standInAt(t *testing.T, path string) *standIn {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &standIn{t, path, ln}
}

// env is the environment variable that leads a host to this stand-in.
func (d *standIn) env() string { return "TLSD_SOCKET=" + d.path }

// accept takes the next connection.
func (d *standIn) accept() *peer {
	d.t.Helper()
	d.ln.SetDeadline(time.Now().Add(testkit.Patience))
	conn, err := d.ln.AcceptUnix()
	if err != nil {
		d.t.Fatal(err)
	}
	p := newPeer(conn)
	p.t = d.t
	d.t.Cleanup(func() { conn.Close() })
	return p
}

// session takes the next connection, and answers its tls.Hello. It returns firstHandle of the
// Hello.
func (d *standIn) session() (p *peer, first int64) {
	d.t.Helper()
	p = d.accept()
	return p, p.hello()
}

// A peer is the stand-in's end of a session with the plugin. Its methods do what tlsd would do.
type peer struct {
	t    *testing.T
	conn *net.UnixConn
	in   *bufio.Reader
	fds  *descriptors
}

// descriptors reads from a connection and keeps the descriptors that come with the bytes.
type descriptors struct {
	*net.UnixConn
	mu   sync.Mutex
	kept []int
}

func (d *descriptors) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*16))
	n, oobn, _, _, err := d.ReadMsgUnix(p, oob)
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, _ := unix.ParseUnixRights(&m)
		d.mu.Lock()
		d.kept = append(d.kept, fds...)
		d.mu.Unlock()
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return max(n, 0), err
}

// take returns the oldest descriptor as a file, or nil if there is none.
func (d *descriptors) take() *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.kept) == 0 {
		return nil
	}
	fd := d.kept[0]
	d.kept = d.kept[1:]
	return os.NewFile(uintptr(fd), "data")
}

func newPeer(conn *net.UnixConn) *peer {
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	fds := &descriptors{UnixConn: conn}
	return &peer{conn: conn, in: bufio.NewReaderSize(fds, 64*1024), fds: fds}
}

// channel returns the end of a data channel that came with the latest request.
func (p *peer) channel() *net.UnixConn {
	p.t.Helper()
	data, err := p.takeChannel()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { data.Close() })
	return data
}

func (p *peer) takeChannel() (*net.UnixConn, error) {
	file := p.fds.take()
	if file == nil {
		return nil, errors.New("no descriptor has come with the message")
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	return conn.(*net.UnixConn), nil
}

type request struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      *int64          `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

// read gives the next message, or an error at the end.
func (p *peer) read() (*request, error) {
	line, err := p.in.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	r := new(request)
	dec := json.NewDecoder(strings.NewReader(string(line)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return nil, fmt.Errorf("%w: %s", err, line)
	}
	if r.JSONRPC != "2.0" {
		return nil, fmt.Errorf("not JSON-RPC 2.0: %s", line)
	}
	return r, nil
}

func (p *peer) request() *request {
	p.t.Helper()
	r, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// expect reads a request, and checks its method and its parameters. It returns the request's id, or
// 0 for a notification.
func (p *peer) expect(method, params string) int64 {
	p.t.Helper()
	r := p.request()
	if r.Method != method || string(r.Params) != params {
		p.t.Fatalf("the plugin sends %s %s; want %s %s", r.Method, r.Params, method, params)
	}
	if r.ID == nil {
		return 0
	}
	return *r.ID
}

// agreement is the stand-in's result of tls.Hello.
const agreement = `{"version":1,"capabilities":["data"],"server":{"name":"tlsd","version":"stand-in","pid":1},"timeouts":{"read":0,"write":60000}}`

// hello reads tls.Hello, the plugin's first message, and answers it. It returns the firstHandle of
// the message.
func (p *peer) hello() int64 {
	p.t.Helper()
	id, first := p.helloOnly()
	p.result(id, agreement)
	return first
}

// helloOnly reads tls.Hello, and leaves the answer to the test.
func (p *peer) helloOnly() (id, first int64) {
	p.t.Helper()
	r := p.request()
	var params struct {
		Version      int      `json:"version"`
		Capabilities []string `json:"capabilities"`
		FirstHandle  int64    `json:"firstHandle"`
	}
	err := json.Unmarshal(r.Params, &params)
	if r.Method != "tls.Hello" || err != nil || params.Version != 1 ||
		!slices.Equal(params.Capabilities, []string{"data"}) {
		p.t.Fatalf("the session begins with %s %s (%v); want tls.Hello with version 1 and "+
			"the capability data", r.Method, r.Params, err)
	}
	return *r.ID, params.FirstHandle
}

// send sends the text unchanged, and adds no line feed.
func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) result(id int64, json string) {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":%s}`+"\n", id, json))
}

// fail answers with an error of kind "io".
func (p *peer) fail(id int64, message string) {
	p.t.Helper()
	text, _ := json.Marshal(message)
	p.send(
		fmt.Sprintf(
			`{"jsonrpc":"2.0","id":%d,"error":{"code":-32008,"message":%s,"data":{"kind":"io"}}}`+"\n", id, text))
}

// close ends the session at once. A mere Close would end it later if another test has just forked:
// until the new process calls execve(2), it has a copy of the socket.
func (p *peer) close() {
	p.t.Helper()
	raw, err := p.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	if err = errors.Join(err, p.conn.Close()); err != nil {
		p.t.Fatal(err)
	}
}

// ended waits until the plugin has closed the connection.
func (p *peer) ended() {
	p.t.Helper()
	if r, err := p.read(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Errorf("the plugin does not close the session; a read gives %+v, %v", r, err)
	}
}

// client makes the host call NewClient, and answers the call with this handle.
func (p *peer) client(h *host, handle int64) {
	p.t.Helper()
	c := h.start("NewClient", "example.com", 443)
	p.result(p.expect("tls.NewClient", `["example.com",443]`), fmt.Sprint(handle))
	c.gives(handle, "")
}

// opened returns a host that has a session with a stand-in and the connection with handle 1.
func opened(t *testing.T, env ...string) (*standIn, *host, *peer) {
	t.Helper()
	d := newStandIn(t)
	h := startHost(t, append([]string{d.env()}, env...)...)
	c := h.start("NewClient", "example.com", 443)
	p, first := d.session()
	if first != 1 {
		t.Errorf("the first session of a process begins with handle %d; want 1", first)
	}
	p.result(p.expect("tls.NewClient", `["example.com",443]`), "1")
	c.gives(1, "")
	return d, h, p
}

// ready does the same as opened, and then the handshake of connection 1. It also returns tlsd's end
// of this connection's data channel.
func ready(t *testing.T, env ...string) (*standIn, *host, *peer, *net.UnixConn) {
	t.Helper()
	d, h, p := opened(t, env...)
	return d, h, p, p.shake(h, 1)
}

// shake does the handshake of a connection, and returns tlsd's end of its data channel.
func (p *peer) shake(h *host, handle int) *net.UnixConn {
	p.t.Helper()
	shake := h.start("Handshake", handle)
	id := p.expect("tls.Handshake", fmt.Sprintf("[%d,1]", handle))
	data := p.channel()
	p.result(id, "0")
	shake.gives(0, "")
	return data
}

// statusOf answers the next request, which must be tls.Status of this handle.
func (p *peer) statusOf(handle int, status string) {
	p.t.Helper()
	p.result(p.expect("tls.Status", fmt.Sprintf("[%d]", handle)), status)
}

// largeText makes a request of nearly 25 kB, because each of its bytes is escaped.
var largeText = strings.Repeat("\x01", 4095)

// clog starts calls that the stand-in does not read. They fill the socket: one call is half sent,
// and the next ones wait until it is sent. The parameter calls has older calls, which already wait
// for their answers. When all threads wait, clog returns the older and the new calls.
func (h *host) clog(p *peer, calls ...*pending) []*pending {
	h.t.Helper()
	for range 16 {
		calls = append(calls, h.start("Accept", 1, largeText, 1))
	}
	testkit.Until(h.t, "150,000 bytes lie unread in the stand-in's socket", func() bool {
		return testkit.Unread(h.t, p.conn) >= 150_000
	})
	h.untilThreadsWait(len(calls))
	return calls
}
