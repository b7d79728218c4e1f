package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlsd/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A standIn plays tlsd's part on one connection, line by line as the test's script says. It does
// not use package wire, so that both ends cannot share a mistake.
type standIn struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	fds  []int // descriptors that have come and were not taken

	channels []net.Conn // channels that were taken; closed when the script ends
}

// Read reads from the connection, and keeps the descriptors that come.
func (s *standIn) Read(p []byte) (int, error) {
	conn, ok := s.conn.(*net.UnixConn)
	if !ok {
		return s.conn.Read(p)
	}
	oob := make([]byte, 128)
	n, oobn, _, _, err := conn.ReadMsgUnix(p, oob)
	messages, _ := syscall.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, _ := syscall.ParseUnixRights(&messages[i])
		s.fds = append(s.fds, fds...)
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return max(n, 0), err
}

// channel takes the descriptor that came with the last message.
func (s *standIn) channel() *net.UnixConn {
	if len(s.fds) != 1 {
		s.t.Errorf("stand-in: %d descriptors have come with the call, want 1", len(s.fds))
		return nil
	}
	f := os.NewFile(uintptr(s.fds[0]), "channel")
	s.fds = nil
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		s.t.Errorf("stand-in: %v", err)
		return nil
	}
	c.SetDeadline(time.Now().Add(testkit.Patience))
	s.channels = append(s.channels, c)
	return c.(*net.UnixConn)
}

// asked is a request that the stand-in has read.
type asked struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
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
		s.t.Errorf("stand-in: the client sent %.60q, want a message of JSON-RPC 2.0: %v",
			line, err)
		return nil
	}
	return &m
}

// expect reads a request, which must have the method. If the argument params is not empty, the
// request must have these parameters, too.
func (s *standIn) expect(method, params string) *asked {
	m := s.next()
	if m == nil {
		s.t.Errorf("stand-in: the stream ended, want a call of %s", method)
		return &asked{ID: json.RawMessage("0")}
	}
	if m.Method != method || params != "" && string(m.Params) != params {
		s.t.Errorf("stand-in: the client called %s%.200s, want %s%s", m.Method,
			m.Params, method, params)
	}
	return m
}

// say sends text as it is.
func (s *standIn) say(format string, args ...any) {
	if _, err := fmt.Fprintf(s.conn, format, args...); err != nil {
		s.t.Errorf("stand-in: write: %v", err)
	}
}

// result answers the request m with a result.
func (s *standIn) result(m *asked, result string) {
	s.say(`{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", m.ID, result)
}

// error answers the request m with an error.
func (s *standIn) error(m *asked, code int, message, kind string) {
	s.say(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":%q,"data":{"kind":%q}}}`+"\n", m.ID, code, message, kind)
}

// end reads until the client has closed the connection. The client must send nothing more.
func (s *standIn) end() {
	if m := s.next(); m != nil {
		s.t.Errorf("stand-in: the client called %s, want nothing", m.Method)
	}
}

// talk returns a client. The script is tlsd's part on the other end. The end of the test closes the
// client, and then waits for the end of the script.
func talk(t *testing.T, script func(*standIn)) *Client {
	t.Helper()
	ours, theirs := pair(t)
	c := New(ours)
	c.cancelTimeout = testkit.Patience // a slow stand-in must not count as a silent one
	play(t, theirs, script)
	t.Cleanup(func() { c.Close() })
	return c
}

// play runs the script on conn in a goroutine. The end of the test waits for the script's end.
func play(t *testing.T, conn net.Conn, script func(*standIn)) {
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer conn.Close()
		s := &standIn{t: t, conn: conn}
		s.r = bufio.NewReader(s)
		script(s)
		for _, c := range s.channels {
			c.Close()
		}
	}()
	t.Cleanup(func() { <-ended })
}

// pair makes two connected Unix stream sockets.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ours, f, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	theirs, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// pattern returns n bytes. Among them are all characters that could break a protocol of lines.
func pattern(n int) []byte { return bytes.Repeat([]byte("a\n\r\x00\xff{\"}"), n/8+1)[:n] }
