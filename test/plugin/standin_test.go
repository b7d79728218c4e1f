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

// env is the host's setting that leads to this stand-in.
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

// session takes the next connection and agrees with it on the protocol.
func (d *standIn) session() (p *peer, first int64) {
	d.t.Helper()
	p = d.accept()
	return p, p.hello()
}

// A peer is the plugin, as seen from tlsd.
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

// take gives the oldest descriptor, as a file.
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

// channel takes the data channel that has come with the message just read.
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

// expect reads a request and checks what it asks for; it returns its id.
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

// agreement is the answer to Hello.
const agreement = `{"version":1,"capabilities":["data"],"server":{"name":"tlsd","version":"stand-in","pid":1},"timeouts":{"read":0,"write":60000}}`

// hello takes the plugin's first message and agrees. It returns firstHandle.
func (p *peer) hello() int64 {
	p.t.Helper()
	id, first := p.helloOnly()
	p.result(id, agreement)
	return first
}

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
		p.t.Fatalf("the session begins with %s %s: %v", r.Method, r.Params, err)
	}
	return *r.ID, params.FirstHandle
}

// send sends exactly this.
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

func (p *peer) fail(id int64, message string) {
	p.t.Helper()
	text, _ := json.Marshal(message)
	p.send(
		fmt.Sprintf(
			`{"jsonrpc":"2.0","id":%d,"error":{"code":-32008,"message":%s,"data":{"kind":"io"}}}`+"\n", id, text))
}

// ended waits until the plugin has closed the connection.
func (p *peer) ended() {
	p.t.Helper()
	if r, err := p.read(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Errorf("the plugin does not close the session: %+v, %v", r, err)
	}
}

// client lets the plugin's host have a connection with this handle.
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
		t.Errorf("the first session of a process begins with handle %d", first)
	}
	p.result(p.expect("tls.NewClient", `["example.com",443]`), "1")
	c.gives(1, "")
	return d, h, p
}

// ready gives a host with the connection 1, whose handshake is done, and our end of its data
// channel.
func ready(t *testing.T, env ...string) (*standIn, *host, *peer, *net.UnixConn) {
	t.Helper()
	d, h, p := opened(t, env...)
	return d, h, p, p.shake(h, 1)
}

// shake does the handshake of a connection, and gives our end of its data channel.
func (p *peer) shake(h *host, handle int) *net.UnixConn {
	p.t.Helper()
	shake := h.start("Handshake", handle)
	id := p.expect("tls.Handshake", fmt.Sprintf("[%d,1]", handle))
	data := p.channel()
	p.result(id, "0")
	shake.gives(0, "")
	return data
}

// statusOf answers the next tls.Status.
func (p *peer) statusOf(handle int, status string) {
	p.t.Helper()
	p.result(p.expect("tls.Status", fmt.Sprintf("[%d]", handle)), status)
}

// largeText makes a request of nearly 25 kB, because each of its bytes is escaped.
var largeText = strings.Repeat("\x01", 4095)

// clog starts calls that nobody reads, until the socket has no room: one is being sent, others wait
// for their turn. It gives them behind the calls that wait already. All their threads are at rest.
func (h *host) clog(p *peer, calls ...*pending) []*pending {
	h.t.Helper()
	for range 16 {
		calls = append(calls, h.start("Accept", 1, largeText, 1))
	}
	testkit.Until(h.t, "150,000 bytes are on their way", func() bool {
		return unread(h.t, p) >= 150_000
	})
	h.untilThreadsWait(len(calls))
	return calls
}
