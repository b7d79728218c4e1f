package rpc_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testkit"
	"tlsd/rpc"
	"tlsd/rpc/wire"
)

// backend is the shortest call, and backendAnswer is its answer.
const backend = `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`
const backendAnswer = `{"jsonrpc":"2.0","id":1,"result":"openssl"}`

// padded is a good call of exactly n bytes.
func padded(n int) string { return backend + strings.Repeat(" ", n-len(backend)) }

// A line of wire.MaxLine bytes is read. The session goes on.
func TestLineOfTheLargestSize(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	go p.line(padded(wire.MaxLine))
	p.expect(backendAnswer)
	p.silent()
}

// A line of more than wire.MaxLine bytes ends the session. The caller gets an error that names the
// limit.
func TestLongerLineEndsTheConnection(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"with its end":  padded(wire.MaxLine+1) + "\n" + backend + "\n",
		"much too long": padded(wire.MaxLine + 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t)
			p.client(p.echo())
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				// The Write may fail, because tlsd closes the connection before it
				// has read all of the data.
				p.conn.Write([]byte(data))
			}()
			got := p.answer()
			if !matches(overLimit("null", ""), got) ||
				!strings.Contains(got, "24117248 bytes") {
				t.Errorf("got %s, want an error of kind limit that names 24117248 "+
					"bytes", got)
			}
			p.cutOff()
			<-sent
			if err := p.over(); err == nil {
				t.Error("after a line that was too long, Serve returns nil, " +
					"want an error")
			}
		})
	}
}

// A line ends with LF or CRLF. Lines of white space are ignored.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.send("\n\r\n   \n\t\r\n" + backend + "\r\n\r\n" + backend + "\n\n")
	p.expect(backendAnswer)
	p.expect(backendAnswer)
	p.silent()
}

// Messages that come byte by byte are read like messages that come whole.
func TestByteByByte(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	for _, b := range []byte(backend + "\r\n" + `{"jsonrpc":"2.0","id":2,"method":"tls.Write","params":[1,""]}` + "\n\n\n\n" + backend + "\n") {
		p.send(string([]byte{b}))
	}
	p.expect(backendAnswer)
	p.expect(`{"jsonrpc":"2.0","id":2,"error":{"code":-32001,"message":...,"data":{"kind":"handle","op":"tls.Write","handle":1}}}`)
	p.expect(backendAnswer)
}

// The last line before the end of the stream counts even without a line feed.
func TestLastLineNeedsNoEnd(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.send(backend + "\n" + backend)
	p.conn.CloseWrite()
	p.expect(backendAnswer)
	p.expect(backendAnswer)
	p.ended()
	if err := p.over(); err != nil {
		t.Errorf("Serve returns %v, want nil", err)
	}
}

// A caller that shuts down its sending side still gets all answers. So a file of calls can be piped
// through socat.
func TestHalfCloseGetsAllAnswers(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	port := testkit.Port(t)
	p.begin("tls.NewServerContext", p.cert.CertFile, p.cert.KeyFile)
	p.begin("tls.Accept", 1, "127.0.0.1", port)
	p.begin("tls.Read", 2, 10)
	p.conn.CloseWrite()
	p.expect(`{"jsonrpc":"2.0","id":1,"result":1}`)

	other := newCaller(t)
	testkit.Until(t, "the port of the Accept takes a connection", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	// The Accept has got the client above, which has closed. So the Accept fails, and so does
	// the Read, because its connection does not exist.
	for range 2 {
		r := p.response()
		if r.Error == nil {
			t.Errorf("call %v has the result %v, want an error", r.ID, r.Result)
		}
	}
	p.ended()
	if err := p.over(); err != nil {
		t.Errorf("Serve returns %v, want nil", err)
	}
	other.silent()
}

// If a caller has shut down its sending side, the session goes on while a call waits. The session
// ends when the caller closes its socket.
func TestHalfClosedCallerMayGo(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	h := p.client(p.echo())
	p.begin("tls.Read", h, 10)
	p.conn.CloseWrite()
	select {
	case <-p.served:
		t.Fatal("the session has ended while the caller waits for the answer to a Read")
	case <-time.After(50 * time.Millisecond): // the promise is that the session does not end
	}
	p.conn.Close()
	if err := p.over(); err != nil {
		t.Errorf("Serve returns %v, want nil", err)
	}
}

// If the caller closes its socket, the session ends at once and frees everything. Even the port of
// a waiting Accept is free.
func TestCallerThatClosesIsGone(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	port := testkit.Port(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	h, ctx := p.client(p.echo()), p.server()
	p.begin("tls.Accept", ctx, "127.0.0.1", port)
	p.begin("tls.Read", h, 10)
	p.begin("tls.NewClient", "127.0.0.1", testkit.Unanswered(t))
	testkit.Until(t, "the port of the Accept takes a connection", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			// This client sends nothing, so the Accept goes on waiting.
			t.Cleanup(func() { c.Close() })
		}
		return err == nil
	})
	p.conn.Close()
	if err := p.over(); err != nil {
		t.Errorf("Serve returns %v, want nil", err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the session has ended, but the port of its Accept is not free: %v", err)
	}
	ln.Close()
}

// If the caller closes its socket before it has read all answers, the session ends, too.
func TestCallerThatClosesWithoutReading(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.client(p.echo())
	for range 100 {
		p.line(backend)
	}
	p.conn.Close()
	p.over()
}

// If the context of Serve ends, the session ends. The caller is told the cause of the context's
// end.
func TestContextEndsTheSession(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	h := p.client(p.echo())
	p.begin("tls.Read", h, 10)
	p.silent() // the Read has begun
	p.stop()
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"lost: the test is over","data":{"kind":"lost"}}}`)
	p.ended()
	if err := p.over(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returns %v, want context.Canceled", err)
	}
}

// If the context of Serve ends, the session ends even if the caller does not read its answers.
func TestContextEndsTheSessionOfADeafCaller(t *testing.T) {
	t.Parallel()
	p := newCaller(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.AnswerTimeout = time.Hour })
	for { // until the answers fill the socket
		p.conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := p.conn.Write([]byte(backend + "\n")); err != nil {
			break
		}
	}
	p.stop()
	if err := p.over(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returns %v, want context.Canceled", err)
	}
}

// If a caller does not read its answers, its session ends after AnswerTimeout. Other sessions go
// on.
func TestACallerThatDoesNotReadItsAnswers(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"calls":        backend,
		"writes":       `{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1,""]}`,
		"little reads": `{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,1]}`,
		"large reads":  `{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,100000]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := newCaller(t)
			deaf := newCaller(t, func(_ *fakeengine.Engine, c *rpc.Config) {
				c.AnswerTimeout = 2 * time.Second
				c.Session.Engine = idle{}
			})
			deaf.client(testkit.Silent(t))
			go func() {
				for {
					_, err := deaf.conn.Write([]byte(line + "\n"))
					if err != nil {
						return
					}
				}
			}()
			if err := deaf.over(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Serve returns %v, want os.ErrDeadlineExceeded", err)
			}
			other.silent()
		})
	}
}

// While many calls wait, tlsd still reads and answers other calls.
func TestWaitingCallsDoNotHoldUpTheConnection(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	h := p.client(p.echo())
	for range 100 {
		p.begin("tls.Read", h, 1)
	}
	p.silent()
	p.line(`{"jsonrpc":"2.0","method":"tls.Write","params":[` + string(h) + `,"` + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 100))) + `"]}`)
	for range 100 {
		if r := p.response(); r.Error != nil || r.Result != "eA==" {
			t.Fatalf("a waiting Read gets %+v, want one byte", r)
		}
	}
}
