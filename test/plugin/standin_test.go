package plugin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A standIn listens where tlsd would. It does nothing by itself: the test takes its
// connections and says word for word what they answer.
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
	d.ln.SetDeadline(time.Now().Add(patience))
	conn, err := d.ln.AcceptUnix()
	if err != nil {
		d.t.Fatal(err)
	}
	p := newPeer(conn)
	p.t = d.t
	d.t.Cleanup(func() { conn.Close() })
	return p
}

// session takes the next connection and agrees with it.
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
	out  io.Writer // conn, or shared

	first  *firstFD
	shared *sharedMemory // after it was agreed on, in which the plugin's messages lie after an empty line; or nil

	sharedIn *bufio.Reader // then in
}

func newPeer(conn *net.UnixConn) *peer {
	conn.SetDeadline(time.Now().Add(patience))
	first := &firstFD{conn, -1}
	return &peer{conn: conn, in: bufio.NewReaderSize(first, 64*1024), out: conn, first: first}
}

type request struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      *int64          `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Raw     *int            `json:"raw"`
	blob    []byte
}

// read gives the next message, or an error at the end.
func (p *peer) read() (*request, error) {
	line, err := p.in.ReadBytes('\n')
	if err == nil && p.shared != nil && string(line) == "\n" && p.in != p.sharedIn {
		p.sharedIn = bufio.NewReaderSize(p.shared, 64*1024)
		p.in = p.sharedIn
		line, err = p.in.ReadBytes('\n')
	}
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
	if r.Raw != nil {
		r.blob = make([]byte, *r.Raw)
		_, err = io.ReadFull(p.in, r.blob)
	}
	return r, err
}

func (p *peer) request() *request {
	p.t.Helper()
	r, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// readAhead is what a tls_Read asks for that wants less, in bytes.
const readAhead = 128 << 10

// expect reads a request and checks what it asks for; it returns its id. The params of a Read are
// those of tls_Read.
func (p *peer) expect(method, params string) int64 {
	p.t.Helper()
	r := p.request()
	var handle, most int
	if n, _ := fmt.Sscanf(params, "[%d,%d]", &handle, &most); n == 2 && method == "tls.Read" {
		params = fmt.Sprintf("[%d,%d]", handle, max(most, readAhead))
	}
	if r.Method != method || string(r.Params) != params {
		p.t.Fatalf("the plugin sends %s %s; want %s %s", r.Method, r.Params, method, params)
	}
	if r.ID == nil {
		return 0
	}
	return *r.ID
}

// hello takes the plugin's first message and agrees. It returns firstHandle.
func (p *peer) hello() int64 {
	p.t.Helper()
	id, first := p.helloOnly()
	const server = `"server":{"name":"tlsd","version":"stand-in","pid":1}`
	if overSharedMemory && p.first.fd >= 0 {
		p.result(id, `{"version":1,"capabilities":["raw","ring"],`+server+`}`)
		p.share()
	} else {
		p.result(id, `{"version":1,"capabilities":["raw"],`+server+`}`)
	}
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
	if r.Method != "tls.Hello" || err != nil || params.Version != 1 || !slices.Contains(params.Capabilities, "raw") {
		p.t.Fatalf("the session begins with %s %s: %v", r.Method, r.Params, err)
	}
	return *r.ID, params.FirstHandle
}

// send sends exactly this.
func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.out, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) result(id int64, json string) {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":%s}`+"\n", id, json))
}

func (p *peer) blob(id int64, data string) {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":null,"raw":%d}`+"\n%s", id, len(data), data))
}

func (p *peer) fail(id int64, message string) {
	p.t.Helper()
	text, _ := json.Marshal(message)
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"error":{"code":-32008,"message":%s,"data":{"kind":"io"}}}`+"\n", id, text))
}

// ended waits until the plugin has closed the connection.
func (p *peer) ended() {
	p.t.Helper()
	if r, err := p.read(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Errorf("the plugin does not close the session: %+v, %v", r, err)
	}
}

// client makes the plugin's host have a connection with this handle.
func (p *peer) client(h *host, handle int64) {
	p.t.Helper()
	c := h.start("NewClient", "example.com", 443)
	p.result(p.expect("tls.NewClient", `["example.com",443]`), fmt.Sprint(handle))
	c.gives(handle, "")
}

// strictWrites is the host's setting with which Writes wait for their answers.
const strictWrites = "TLSD_STRICT_WRITES=1"

// opened gives a host that has a session with a stand-in and the connection with handle 1. Its Writes are strict
// unless env says otherwise.
func opened(t *testing.T, env ...string) (*standIn, *host, *peer) {
	t.Helper()
	d := newStandIn(t)
	h := startHost(t, append([]string{d.env(), strictWrites}, env...)...)
	c := h.start("NewClient", "example.com", 443)
	p, first := d.session()
	if first != 1 {
		t.Errorf("the first session of a process begins with handle %d", first)
	}
	p.result(p.expect("tls.NewClient", `["example.com",443]`), "1")
	c.gives(1, "")
	return d, h, p
}
