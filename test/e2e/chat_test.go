package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testcc"
	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Chats with many clients in one thread: examples/chat-server.dom by tls.Wait, and those of
// testdata/chat by the descriptors, in C, LuaJIT and Python.

// patience is how long a chat waits for a client that reads nothing. It is long, so that no client
// of a busy machine counts as a slow one.
const patience = 30 * time.Second

// begin starts a server that ends when so many clients have left, and gives its port.
type begin func(t *testing.T, d *testd.Daemon, cert *testcert.Cert, count int) (*process, int)

// chats are the servers, each with what it prints of a client that does not read.
var chats = map[string]struct {
	start begin
	slow  string
}{
	"script":              {script, "the peer has not taken "},
	"C with poll":         {byItself(compiled), "the peer has not taken "},
	"LuaJIT with poll":    {byItself(luajit.chat("chat.lua")), "the peer has not taken "},
	"Python with asyncio": {byItself(python.chat("chat.py")), "is gone: TimeoutError"},
}

func script(t *testing.T, d *testd.Daemon, cert *testcert.Cert, count int) (*process, int) {
	t.Helper()
	return startServer(t, d, cert, "chat-server.dom", fmt.Sprintf("-DCOUNT=%d", count),
		fmt.Sprintf("-DPATIENCE=%d", patience.Milliseconds()))
}

// compiled gives testdata/chat/chat.c.
func compiled(t *testing.T) program {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "chat")
	header, plugin := filepath.Join(root(t), "cmd/tlsshim/plugin"), testd.Plugin(t)
	testkit.Must(t, testcc.Compile(t.Context(), testkit.Tool(t, "cc"), exe,
		[]string{"testdata/chat/chat.c", plugin}, "-I"+header,
		"-Wl,-rpath,"+filepath.Dir(plugin))) // make's plugin has a soname
	return program{name: exe}
}

// chat gives a program of testdata/chat, beside a copy of the binding.
func (l tongue) chat(name string) func(*testing.T) program {
	return func(t *testing.T) program {
		t.Helper()
		testkit.Tool(t, l.program)
		dir := t.TempDir()
		for _, file := range []string{filepath.Join(root(t), "bindings", l.binding),
			filepath.Join("testdata/chat", name)} {
			writeFile(t, filepath.Join(dir, filepath.Base(file)), readFile(t, file))
		}
		return program{name: l.program, args: []string{name}, dir: dir}
	}
}

// byItself starts a program of testdata/chat, which chooses its port.
func byItself(give func(*testing.T) program) begin {
	return func(t *testing.T, d *testd.Daemon, cert *testcert.Cert, count int) (*process, int) {
		t.Helper()
		p := give(t)
		p.args = append(p.args, cert.CertFile, cert.KeyFile, strconv.Itoa(count),
			strconv.FormatInt(patience.Milliseconds(), 10))
		p.env = append(env(d), "TLSPLUGIN="+testd.Plugin(t))
		r := start(t, p)
		return r, r.port(t)
	}
}

// A member is a client of the chat.
type member struct {
	conn *tls.Conn
	in   *bufio.Reader
}

// join makes a client that the server knows: it has got back what it has said. room is that of its
// socket; 0: the system's.
func join(ca *testcert.CA, port, room int, name string) (*member, error) {
	nc, err := net.Dial("tcp", testkit.Addr(port))
	if err != nil {
		return nil, err
	}
	if room > 0 {
		if err := nc.(*net.TCPConn).SetReadBuffer(room); err != nil {
			return nil, err
		}
	}
	nc.SetDeadline(time.Now().Add(2 * testkit.Patience)) // for all that it does
	c := tls.Client(nc, &tls.Config{ServerName: "localhost", RootCAs: ca.Pool()})
	m := &member{c, bufio.NewReader(c)}
	return m, m.says(name + " is here")
}

// says says a line, and reads on until it comes back.
func (m *member) says(line string) error {
	if _, err := io.WriteString(m.conn, line+"\n"); err != nil {
		return err
	}
	return m.hears(line)
}

// hears reads on until it has read all of these lines, in any order.
func (m *member) hears(lines ...string) error {
	missing := map[string]bool{}
	for _, l := range lines {
		missing[l] = true
	}
	for len(missing) > 0 {
		line, err := m.in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%d lines are missing: %w", len(missing), err)
		}
		delete(missing, strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// leaves ends the client in an orderly way. The server's end is orderly, too.
func (m *member) leaves() error {
	defer m.conn.Close()
	if err := m.conn.CloseWrite(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, m.in)
	return err
}

// each runs f for all, at the same time, and fails the test if one of them fails.
func each(t *testing.T, members []*member, f func(i int, m *member) error) {
	t.Helper()
	var all sync.WaitGroup
	for i, m := range members {
		all.Go(func() {
			if err := f(i, m); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// pester scans a port and talks nonsense to it, until stop is closed.
func pester(t *testing.T, port int, stop <-chan struct{}) {
	said := []string{"", "GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\x00\x05hello",
		strings.Repeat("garbage", 10000)}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond): // the port is to have time for others
		}
		c, err := net.Dial("tcp", testkit.Addr(port))
		if err != nil {
			t.Errorf("the port scanner: %v", err)
			return
		}
		_, _ = io.WriteString(c, said[i%len(said)]) // the server may have hung up
		if i%3 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
	}
}

// 200 clients talk, one reads nothing, one breaks off, and strangers scan the port and send
// garbage.
func TestAChatInOneThreadRunsOnWhateverItsClientsDo(t *testing.T) {
	t.Parallel()
	for name, c := range chats {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const clients = 200
			ca, cert := localhost(t)
			// The chat's own patience is to end first.
			d := testd.Start(t, "--write-timeout", "5m")
			server, port := c.start(t, d, cert, clients+2)
			talk(t, ca, server, port, clients)
			out := finish(t, server)
			if n := strings.Count(out, " has left\n"); n != clients {
				t.Errorf("%d clients of %d have left in an orderly way", n, clients)
			}
			if n := strings.Count(out, " is gone: "); n != 2 {
				t.Errorf("%d are gone, want the slow one and the rude one", n)
			}
			mustContain(t, "the server", out, c.slow)
		})
	}
}

// talk is what all clients and strangers do, until the last has left.
func talk(t *testing.T, ca *testcert.CA, server *process, port, clients int) {
	const speakers, stay = 20, 5
	stop := make(chan struct{})
	var strangers sync.WaitGroup
	strangers.Go(func() { pester(t, port, stop) })
	leave := sync.OnceFunc(func() {
		close(stop)
		strangers.Wait()
	})
	defer leave()

	members := make([]*member, clients)
	each(t, members, func(i int, _ *member) (err error) {
		members[i], err = join(ca, port, 0, fmt.Sprintf("client %d", i))
		return err
	})
	slow, err := join(ca, port, 4096, "the slow one")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.conn.Close()
	rude, err := join(ca, port, 0, "the rude one")
	if err != nil {
		t.Fatal(err)
	}
	rude.conn.NetConn().(*net.TCPConn).SetLinger(0) // a reset
	rude.conn.NetConn().Close()
	server.expect(t, "is gone: ")

	// All hear all, though the slow one reads nothing.
	var lines []string
	for i := range speakers {
		lines = append(lines, fmt.Sprintf("speech of client %d", i))
	}
	each(t, members, func(i int, m *member) error {
		if i < speakers {
			if _, err := io.WriteString(m.conn, lines[i]+"\n"); err != nil {
				return err
			}
		}
		return m.hears(lines...)
	})
	each(t, members[stay:], func(_ int, m *member) error { return m.leaves() })

	// More than all buffers on the way to the slow one.
	each(t, members[:stay], func(i int, m *member) error {
		if i > 0 {
			return m.hears("the flood is over")
		}
		said := make(chan error, 1)
		go func() {
			flood := strings.Repeat("A line of the flood.\n", 600_000)
			_, err := io.WriteString(m.conn, flood+"the flood is over\n")
			said <- err
		}()
		if err := m.hears("the flood is over"); err != nil {
			return err
		}
		return <-said
	})
	for i := 0; strings.Count(server.stdout.String(), "is gone: ") < 2; i++ {
		if err := members[i%stay].says(fmt.Sprintf("line %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	each(t, members[:stay], func(_ int, m *member) error { return m.leaves() })
}
