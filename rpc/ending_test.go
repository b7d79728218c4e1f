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

const backend = `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`
const backendAnswer = `{"jsonrpc":"2.0","id":1,"result":"openssl"}`

// padded is a good call of exactly n bytes.
func padded(n int) string { return backend + strings.Repeat(" ", n-len(backend)) }

func TestLineOfTheLargestSize(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	go p.line(padded(wire.MaxLine))
	p.expect(backendAnswer)
	p.silent()
}

func TestLongerLineEndsTheConnection(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"with its end":  padded(wire.MaxLine+1) + "\n" + backend + "\n",
		"much too long": padded(wire.MaxLine + 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			p.client(p.echo())
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				// may fail at the end, because the server closes
				p.conn.Write([]byte(data))
			}()
			got := p.answer()
			if !matches(overLimit("null", ""), got) ||
				!strings.Contains(got, "24117248 bytes") {
				t.Errorf("got %s, want an error of kind limit that names the bound",
					got)
			}
			p.ended()
			<-sent
			if err := p.over(); err == nil {
				t.Error("Serve returned no error")
			}
		})
	}
}

func TestLineEnds(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.send("\n\r\n   \n\t\r\n" + backend + "\r\n\r\n" + backend + "\n\n")
	p.expect(backendAnswer)
	p.expect(backendAnswer)
	p.silent()
}

// TestByteByByte: the pieces of the stream make no difference.
func TestByteByByte(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	for _, b := range []byte(backend + "\r\n" + `{"jsonrpc":"2.0","id":2,"method":"tls.Write","params":[1,""]}` + "\n\n\n\n" + backend + "\n") {
		p.send(string([]byte{b}))
	}
	p.expect(backendAnswer)
	p.expect(`{"jsonrpc":"2.0","id":2,"error":{"code":-32001,"message":...,"data":{"kind":"handle","op":"tls.Write","handle":1}}}`)
	p.expect(backendAnswer)
}

func TestLastLineNeedsNoEnd(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.send(backend + "\n" + backend)
	p.conn.CloseWrite()
	p.expect(backendAnswer)
	p.expect(backendAnswer)
	p.ended()
	if err := p.over(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

// TestHalfCloseGetsAllAnswers: a file of lines may be piped through socat.
func TestHalfCloseGetsAllAnswers(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	port := testkit.Port(t)
	p.begin("tls.NewServerContext", p.cert.CertFile, p.cert.KeyFile)
	p.begin("tls.Accept", 1, "127.0.0.1", port)
	p.begin("tls.Read", 2, 10)
	p.conn.CloseWrite()
	p.expect(`{"jsonrpc":"2.0","id":1,"result":1}`)

	other := newPeer(t)
	testkit.Until(t, "the listener", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	// The Accept met this client. The handshake failed, and with it the Read.
	for range 2 {
		r := p.response()
		if r.Error == nil {
			t.Errorf("%v: result %v", r.ID, r.Result)
		}
	}
	p.ended()
	if err := p.over(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
	other.silent()
}

// TestHalfClosedCallerMayGo: the caller waits for answers, and then closes its socket.
func TestHalfClosedCallerMayGo(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	h := p.client(p.echo())
	p.begin("tls.Read", h, 10)
	p.conn.CloseWrite()
	select {
	case <-p.served:
		t.Fatal("the session has ended though an answer is missing")
	case <-time.After(50 * time.Millisecond): // the promise is that nothing happens
	}
	p.conn.Close()
	if err := p.over(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

// TestCallerThatClosesIsGone: tlsd frees at once what the caller owned. The port of a waiting
// Accept can be bound again.
func TestCallerThatClosesIsGone(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	port := testkit.Port(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	h, ctx := p.client(p.echo()), p.server()
	p.begin("tls.Accept", ctx, "127.0.0.1", port)
	p.begin("tls.Read", h, 10)
	p.begin("tls.NewClient", "127.0.0.1", testkit.Unanswered(t))
	testkit.Until(t, "the listener", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			t.Cleanup(func() { c.Close() }) // does not finish its handshake
		}
		return err == nil
	})
	p.conn.Close()
	if err := p.over(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	ln.Close()
}

// TestCallerThatClosesWithoutReading: unread answers make no difference.
func TestCallerThatClosesWithoutReading(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.client(p.echo())
	for range 100 {
		p.line(backend)
	}
	p.conn.Close()
	p.over()
}

// TestContextEndsTheSession: the caller gets the context's cause.
func TestContextEndsTheSession(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	h := p.client(p.echo())
	p.begin("tls.Read", h, 10)
	p.silent() // the Read has begun
	p.stop()
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"lost: the test is over","data":{"kind":"lost"}}}`)
	p.ended()
	if err := p.over(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
}

// TestContextEndsTheSessionOfADeafCaller: the session ends although the caller does not read.
func TestContextEndsTheSessionOfADeafCaller(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.AnswerTimeout = time.Hour })
	for { // until the answers fill the socket
		p.conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := p.conn.Write([]byte(backend + "\n")); err != nil {
			break
		}
	}
	p.stop()
	if err := p.over(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
}

// TestReaderThatDoesNotRead: its session ends after the timeout, and no other session does.
func TestReaderThatDoesNotRead(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"calls":        backend,
		"writes":       `{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1,""]}`,
		"little reads": `{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,1]}`,
		"large reads":  `{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,100000]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := newPeer(t)
			deaf := newPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) {
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
				t.Errorf("Serve returned %v, want a timeout", err)
			}
			other.silent()
		})
	}
}

// TestWaitingCallsDoNotHoldUpTheConnection: this holds for any number of calls.
func TestWaitingCallsDoNotHoldUpTheConnection(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	h := p.client(p.echo())
	for range 100 {
		p.begin("tls.Read", h, 1)
	}
	p.silent()
	p.line(`{"jsonrpc":"2.0","method":"tls.Write","params":[` + string(h) + `,"` + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 100))) + `"]}`)
	for range 100 {
		if r := p.response(); r.Error != nil || r.Result != "eA==" {
			t.Fatalf("%+v", r)
		}
	}
}
