package conformance

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tlsd/internal/ours"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/rpc/wire"
)

// A call that exceeds a limit is refused with kind limit, and the error names the flag of the
// limit.

// liner is a caller that writes lines of its own to tlsd's socket, without rpc/client.
type liner struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	id   int
}

func newLiner(t *testing.T, d *testd.Daemon) *liner {
	t.Helper()
	conn, err := net.Dial("unix", d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	return &liner{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// begin sends a call with the next id.
func (l *liner) begin(method, params string) int {
	l.t.Helper()
	l.id++
	l.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", l.id, method, params))
	return l.id
}

// writeOf returns the parameters of a Write of n bytes on handle 1.
func writeOf(n int) string {
	return fmt.Sprintf(`[1,"%s"]`, base64.StdEncoding.EncodeToString(make([]byte, n)))
}

func (l *liner) send(s string) {
	l.t.Helper()
	if _, err := io.WriteString(l.conn, s); err != nil {
		l.t.Fatal(err)
	}
}

// answer reads the next answer.
func (l *liner) answer() (id string, _ *wire.Error) {
	l.t.Helper()
	line, err := l.in.ReadString('\n')
	if err != nil {
		l.t.Fatalf("no answer of tlsd could be read: %v", err)
	}
	var r wire.Response
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		l.t.Fatalf("tlsd's answer is not a JSON-RPC response: %v in %s", err, line)
	}
	return string(r.ID), r.Error
}

// ok makes a call that must succeed. refused makes a call that must exceed the limit of a flag.
func (l *liner) ok(method, params string) {
	l.t.Helper()
	want := fmt.Sprint(l.begin(method, params))
	if id, err := l.answer(); id != want || err != nil {
		l.t.Fatalf("%s%s: the next answer is for call %s, with the error %v; want the "+
			"answer to this call, without an error", method, params, id, err)
	}
}

func (l *liner) refused(flag, method, params string) {
	l.t.Helper()
	l.meets(flag, fmt.Sprint(l.begin(method, params)))
}

// meets reads the next answer. The answer must be for the call with the id want, and must refuse
// the call because of the limit of the flag.
func (l *liner) meets(flag, want string) {
	l.t.Helper()
	id, err := l.answer()
	if id != want || err == nil || err.Data == nil || err.Data.Kind != client.KindLimit ||
		err.Code != -32011 || !strings.Contains(err.Message, flag) {
		l.t.Fatalf("the answer to call %s is %+v; want an answer to call %s, of kind "+
			"limit, that names %s", id, err, want, flag)
	}
}

// ended checks that tlsd has closed the connection and has sent nothing more.
func (l *liner) ended() {
	l.t.Helper()
	if rest, err := io.ReadAll(l.in); err != nil || len(rest) > 0 {
		l.t.Fatalf("tlsd must send nothing more and close the connection; a read to the "+
			"end gives %q, %v", rest, err)
	}
}

// silent returns the port of a server that sends nothing.
func silent(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() }) // nobody accepts: the kernel makes the connections
	return ln.Addr().(*net.TCPAddr).Port
}

// TestLimits tries each limit that a flag of tlsd sets. Calls up to the limit are served. The call
// after them is refused with kind limit. If the session goes on, a call within the limit is served
// again.
func TestLimits(t *testing.T) {
	t.Parallel()
	needsLevel(t, bareDaemon)
	for _, c := range []struct {
		flag, value string
		test        func(t *testing.T, d *testd.Daemon)
	}{
		{"--max-message", "2KiB", func(t *testing.T, d *testd.Daemon) {
			l := newLiner(t, d)
			line := func(n int) string {
				const call = `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`
				return call + strings.Repeat(" ", n-len(call)) + "\n"
			}
			l.send(line(2048))
			if id, err := l.answer(); id != "1" || err != nil {
				t.Fatalf("a message as large as the limit: got an answer to call "+
					"%s, with the error %v; want call 1, no error", id, err)
			}
			l.send(line(2049))
			l.meets("--max-message", "null")
			l.ended()
		}},
		{"--max-nesting", "5", func(t *testing.T, d *testd.Daemon) {
			l := newLiner(t, d)
			l.send(`{"jsonrpc":"2.0","id":1,"method":"tls.Backend","x":[[[[]]]]}` + "\n")
			if id, err := l.answer(); id != "1" || err != nil {
				t.Fatalf("a message nested to the limit: got an answer to call "+
					"%s, with the error %v; want call 1, no error", id, err)
			}
			l.send(`{"jsonrpc":"2.0","id":2,"method":"tls.Backend","x":[[[[[]]]]]}` + "\n")
			l.meets("--max-nesting", "2")
			l.ok("tls.Backend", "[]")
		}},
		{"--max-calls", "3", func(t *testing.T, d *testd.Daemon) {
			l := newLiner(t, d)
			l.ok("tls.NewClient", fmt.Sprintf(`["127.0.0.1",%d]`, silent(t)))
			l.begin("tls.Handshake", "[1]") // never ends; the Reads wait for it
			l.begin("tls.Read", "[1,1]")
			last := l.begin("tls.Read", "[1,1]")
			l.refused("--max-calls", "tls.Read", "[1,1]")
			l.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[%d]}`, last) + "\n")
			if id, err := l.answer(); id != fmt.Sprint(last) || err == nil ||
				err.Data == nil || err.Data.Kind != client.KindCancelled {
				t.Fatalf("call %d was cancelled; the next answer is for call %s, "+
					"with the error %v; want kind cancelled", last, id, err)
			}
			l.begin("tls.Read", "[1,1]")
			l.refused("--max-calls", "tls.Read", "[1,1]")
		}},
		{"--max-buffered", "100KiB", func(t *testing.T, d *testd.Daemon) {
			l := newLiner(t, d)
			l.ok("tls.NewClient", fmt.Sprintf(`["127.0.0.1",%d]`, silent(t)))
			l.begin("tls.Handshake", "[1]") // never ends; the Writes wait for it
			l.begin("tls.Write", writeOf(60<<10))
			last := l.begin("tls.Write", writeOf(40<<10))
			l.refused("--max-buffered", "tls.Write", writeOf(1))
			l.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[%d]}`, last) + "\n")
			if id, err := l.answer(); id != fmt.Sprint(last) || err == nil ||
				err.Data == nil || err.Data.Kind != client.KindCancelled {
				t.Fatalf("call %d was cancelled; the next answer is for call %s, "+
					"with the error %v; want kind cancelled", last, id, err)
			}
			l.refused("--max-buffered", "tls.Write", writeOf(40<<10+1))
			l.begin("tls.Write", writeOf(40<<10))
			l.refused("--max-buffered", "tls.Write", `[1,"eA=="]`)
		}},
		{"--max-handles", "2", func(t *testing.T, d *testd.Daemon) {
			l := newLiner(t, d)
			open := fmt.Sprintf(`["127.0.0.1",%d]`, silent(t))
			l.ok("tls.NewClient", open)
			l.ok("tls.NewClient", open)
			l.refused("--max-handles", "tls.NewClient", open)
			l.ok("tls.Close", "[1]")
			l.ok("tls.NewClient", open)
			l.refused("--max-handles", "tls.NewClient", open)
		}},
		{"--max-sessions", "2", sessions("--max-sessions")},
		{"--max-sessions-per-uid", "2", sessions("--max-sessions-per-uid")},
		{"--max-pending", "2", pending},
	} {
		t.Run(c.flag, func(t *testing.T) {
			t.Parallel()
			c.test(t, daemon(t, c.flag, c.value))
		})
	}
}

// sessions returns a test that opens two sessions. A third session is refused until one of the two
// has ended.
func sessions(flag string) func(*testing.T, *testd.Daemon) {
	return func(t *testing.T, d *testd.Daemon) {
		a, b := newLiner(t, d), newLiner(t, d)
		a.ok("tls.Backend", "[]")
		b.ok("tls.Backend", "[]")
		over := newLiner(t, d)
		over.meets(flag, "null")
		over.ended()
		a.conn.Close()
		testkit.Until(t, "there is room for another session", func() bool {
			again := newLiner(t, d)
			// If tlsd has already refused the session, the write fails. Its error does
			// not matter, because answer then reads the refusal.
			io.WriteString(again.conn,
				`{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`+"\n")
			_, err := again.answer()
			return err == nil
		})
		newLiner(t, d).meets(flag, "null")
	}
}

// pending lets two clients finish their handshakes. A third client stays in the kernel's queue
// until an Accept has claimed one of the two.
func pending(t *testing.T, d *testd.Daemon) {
	w := newWorld(t)
	ln := us{ours.Daemon{D: d}}.server(t, listenOptions{cert: w.cert})
	dial := func() *tls.Conn {
		nc, err := net.Dial("tcp", testkit.Addr(ln.Port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(testkit.Patience))
		return tls.Client(nc, &tls.Config{ServerName: "localhost", RootCAs: w.ca.Pool()})
	}
	for range 2 {
		if err := dial().Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	third, done := dial(), make(chan error, 1)
	go func() { done <- third.Handshake() }()
	// While the worker answers these calls, it would also accept the third client, if the limit
	// allowed that.
	for range 100 {
		_, err := ln.S.Version(ln.Ctx, 0)
		testkit.Must(t, err)
	}
	if n := testkit.Backlog(t, ln.Port); n != 1 || len(done) > 0 {
		t.Fatalf("%d clients wait in the kernel, want 1, the third; the third client's "+
			"handshake has ended: %t, want false",
			n, len(done) > 0)
	}
	if _, err := ln.accept(t); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the third client's handshake, after an Accept has claimed another "+
			"client: %v", err)
	}
}
