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

// Each chat server serves many clients in one thread. examples/chat-server.dom waits with tls.Wait.
// The servers of testdata/chat, in C, LuaJIT and Python, poll the connections' descriptors.

// patience is how long a chat server waits for a client that reads nothing. The time is so long
// that a client which reads is never too slow, even on a busy machine.
const patience = 30 * time.Second

// begin starts a chat server, which ends when count clients have left. It returns the server's
// process and port.
type begin func(t *testing.T, d *testd.Daemon, cert *testcert.Cert, count int) (*process, int)

var chats = map[string]struct {
	start begin
	slow  string // the server prints this about a client that does not read
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

// compiled compiles testdata/chat/chat.c.
func compiled(t *testing.T) program {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "chat")
	header, plugin := filepath.Join(root(t), "cmd/tlsshim/plugin"), testd.Plugin(t)
	testkit.Must(t, testcc.Compile(t.Context(), testkit.Tool(t, "cc"), exe,
		[]string{"testdata/chat/chat.c", plugin}, "-I"+header,
		// The plugin that make builds has a soname, so the loader must find its folder.
		"-Wl,-rpath,"+filepath.Dir(plugin)))
	return program{name: exe}
}

// chat returns a function that copies a program of testdata/chat and the binding into one folder.
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

// byItself starts a program of testdata/chat. The program chooses its port by itself, and prints
// it.
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

// join connects a client, and returns when the client has got its own first line back. Then the
// server has accepted the client. If buffer is not 0, it is the size of the client's receive
// buffer.
func join(ca *testcert.CA, port, buffer int, name string) (*member, error) {
	nc, err := net.Dial("tcp", testkit.Addr(port))
	if err != nil {
		return nil, err
	}
	if buffer > 0 {
		if err := nc.(*net.TCPConn).SetReadBuffer(buffer); err != nil {
			return nil, err
		}
	}
	nc.SetDeadline(time.Now().Add(2 * testkit.Patience)) // until the end of the chat
	c := tls.Client(nc, &tls.Config{ServerName: "localhost", RootCAs: ca.Pool()})
	m := &member{c, bufio.NewReader(c)}
	return m, m.says(name + " is here")
}

// m.says sends a line, and reads lines until the same line comes back.
func (m *member) says(line string) error {
	if _, err := io.WriteString(m.conn, line+"\n"); err != nil {
		return err
	}
	return m.hears(line)
}

// m.hears reads until all of the given lines have come, in any order. Other lines may come between
// them.
func (m *member) hears(lines ...string) error {
	missing := map[string]bool{}
	for _, l := range lines {
		missing[l] = true
	}
	for len(missing) > 0 {
		line, err := m.in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%d lines of the chat are missing: %w", len(missing), err)
		}
		delete(missing, strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// m.leaves ends the client with close_notify. It returns an error unless the server sends
// close_notify, too.
func (m *member) leaves() error {
	defer m.conn.Close()
	if err := m.conn.CloseWrite(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, m.in)
	return err
}

// each calls f for all members at the same time. If f returns an error for a member, the test ends.
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

// pester plays a port scanner until stop is closed: it connects, sends garbage or nothing, and
// hangs up.
func pester(t *testing.T, port int, stop <-chan struct{}) {
	said := []string{"", "GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\x00\x05hello",
		strings.Repeat("garbage", 10000)}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond): // the server needs time for the members
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

// 200 clients chat. Meanwhile one client reads nothing, another resets its connection, and a port
// scanner sends garbage.
func TestAChatInOneThreadRunsOnWhateverItsClientsDo(t *testing.T) {
	t.Parallel()
	for name, c := range chats {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const clients = 200
			ca, cert := localhost(t)
			server, port := c.start(t, testd.Start(t), cert, clients+2)
			talk(t, ca, server, port, clients)
			out := finish(t, server)
			if n := strings.Count(out, " has left\n"); n != clients {
				t.Errorf("the server printed for %d clients that they have left; "+
					"want %d", n, clients)
			}
			if n := strings.Count(out, " is gone: "); n != 2 {
				t.Errorf("the server printed for %d clients that they are gone; "+
					"want 2, the slow one and the rude one", n)
			}
			mustContain(t, "the server", out, c.slow)
		})
	}
}

// talk plays all clients and the port scanner. It returns when all clients have left.
func talk(t *testing.T, ca *testcert.CA, server *process, port, clients int) {
	const speakers = 20 // clients that send a line
	const stay = 5      // clients that stay until one of them floods the chat
	stop := make(chan struct{})
	var scanner sync.WaitGroup
	scanner.Go(func() { pester(t, port, stop) })
	endScan := sync.OnceFunc(func() {
		close(stop)
		scanner.Wait()
	})
	defer endScan()

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
	rude.conn.NetConn().(*net.TCPConn).SetLinger(0) // Close sends RST
	rude.conn.NetConn().Close()
	server.expect(t, "is gone: ")

	// Each client gets each speaker's line, although the slow client reads nothing.
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

	// One client floods the chat, with more than all buffers on the way to the slow client can
	// take. The other clients still get everything.
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
	// At last the server drops the slow client. Until then, it must serve the other clients.
	for i := 0; strings.Count(server.stdout.String(), "is gone: ") < 2; i++ {
		if err := members[i%stay].says(fmt.Sprintf("line %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	endScan()
	each(t, members[:stay], func(_ int, m *member) error { return m.leaves() })
}
