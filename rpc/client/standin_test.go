package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A standIn plays tlsd's part on one connection, line by line as a test scripts
// it. It knows nothing of package wire, so that both ends do not share a mistake.
type standIn struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// asked is what the stand-in has read.
type asked struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Raw     *int            `json:"raw"`
	blob    []byte
}

// next reads a request. It returns nil at the end of the stream.
func (s *standIn) next() *asked {
	line, err := s.r.ReadBytes('\n')
	if err == io.EOF && len(line) == 0 {
		return nil
	}
	if err != nil {
		s.t.Errorf("stand-in: read: %v (after %.60q)", err, line)
		return nil
	}
	var m asked
	if err := json.Unmarshal(line, &m); err != nil || m.JSONRPC != "2.0" {
		s.t.Errorf("stand-in: the client sent %.60q: %v", line, err)
		return nil
	}
	if m.Raw != nil {
		m.blob = make([]byte, *m.Raw)
		if _, err := io.ReadFull(s.r, m.blob); err != nil {
			s.t.Errorf("stand-in: raw bytes: %v", err)
			return nil
		}
	}
	return &m
}

// expect reads a request of that method and, if they are not empty, those parameters.
func (s *standIn) expect(method, params string) *asked {
	m := s.next()
	if m == nil {
		s.t.Errorf("stand-in: the stream ended, want a call of %s", method)
		return &asked{ID: json.RawMessage("0")}
	}
	if m.Method != method || params != "" && string(m.Params) != params {
		s.t.Errorf("stand-in: the client called %s%s, want %s%s", m.Method, m.Params, method, params)
	}
	return m
}

// say sends text as it is.
func (s *standIn) say(format string, args ...any) {
	if _, err := fmt.Fprintf(s.conn, format, args...); err != nil {
		s.t.Errorf("stand-in: write: %v", err)
	}
}

func (s *standIn) result(m *asked, result string) {
	s.say(`{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", m.ID, result)
}

func (s *standIn) error(m *asked, code int, message, kind string) {
	s.say(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":%q,"data":{"kind":%q}}}`+"\n", m.ID, code, message, kind)
}

// end reads until the client is gone; it must not send anything more.
func (s *standIn) end() {
	if m := s.next(); m != nil {
		s.t.Errorf("stand-in: the client called %s, want nothing", m.Method)
	}
}

// talk starts a client whose other end follows the script. The script is
// waited for, after the client was closed.
func talk(t *testing.T, script func(*standIn)) *Client {
	t.Helper()
	ours, theirs := pair(t)
	c := New(ours)
	play(t, theirs, script)
	t.Cleanup(func() { c.Close() })
	return c
}

func play(t *testing.T, conn net.Conn, script func(*standIn)) {
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer conn.Close()
		script(&standIn{t, conn, bufio.NewReader(conn)})
	}()
	t.Cleanup(func() { <-ended })
}

// pair makes two connected Unix stream sockets.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		conns[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}

// pattern is data with everything in it that could upset a line-based protocol.
func pattern(n int) []byte { return bytes.Repeat([]byte("a\n\r\x00\xff{\"}"), n/8+1)[:n] }
