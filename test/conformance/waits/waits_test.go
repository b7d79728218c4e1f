package waits

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// Each wait can be ended: by a cancel, by closing the handle, by a timeout, and by the end of the
// session.

// A way is how a wait is ended.
type way int

const (
	byCancel way = iota // $/cancelRequest
	byClose             // tls.Close, or tls.CloseServerContext, of the handle
	byCaller            // the caller's end of the connection is closed
	byDaemon            // the daemon ends the session
	byFlag              // a timeout that tlsd was started with
	byHandle            // tls.SetTimeout
	ways
)

func (w way) String() string {
	return [...]string{"$/cancelRequest", "closing the handle", "the caller's end",
		"the daemon's end", "a timeout", "tls.SetTimeout"}[w]
}

const (
	moment = 100 * time.Millisecond // a timeout that passes soon
	era    = time.Hour              // a timeout that does not pass in a test
)

// ok is the kind of a call that has ended without an error.
const ok = "ok"

// A wait is a call, in a phase in which it can wait for ever.
type wait struct {
	method, phase string
	// begin brings the session to the point where the call waits, and returns the id of the
	// call. The way byClose closes handle 1. begin calls bound(1) before the call that
	// SetTimeout limits.
	begin func(c *caller) (id string)
	// How the call ends by each way. A text that begins with "no:" says why that way does not
	// exist.
	cancel, close, flag, handle, caller string
	// The method that closes handle 1 (empty: tls.Close), and how the call of this method ends
	// (empty: "ok").
	closer, closed string
	// drained says that the end of the session waits, within the close timeout, for the data on
	// a data channel.
	drained bool
	// timeout sets the timeout that ends the wait, for the way byFlag.
	timeout func(*session.Timeouts)
}

// Each of these functions sets one timeout to the constant moment.
func connect(t *session.Timeouts)   { t.Connect = moment }
func handshake(t *session.Timeouts) { t.Handshake = moment }
func accepting(t *session.Timeouts) { t.Accept = moment }
func greeting(t *session.Timeouts)  { t.AcceptHandshake = moment }
func reading(t *session.Timeouts)   { t.Read = moment }
func writing(t *session.Timeouts)   { t.Write = moment }
func closing(t *session.Timeouts)   { t.Close = moment }

const (
	noHandle = "no: the call makes the handle"
	noBound  = "no: its timeout begins when the calls before it have ended"
	drains   = "no: tls.Close first sends the data of the channel, up to a timeout of its own"
	closes   = "no: it closes the handle"
)

const (
	halfServerHello = "\x16\x03\x03\x00\x7a\x02\x00\x00\x76"
	halfClientHello = "\x16\x03\x01\x02\x00\x01\x00"
	halfRecord      = "\x17\x03\x03\x01\x00half of it"
	much            = 6 << 20 // bytes, more than sockets take
)

var waits = []wait{
	{method: "tls.NewClient", phase: "name look-up", timeout: connect,
		begin: func(c *caller) string {
			return c.call("tls.NewClient",
				`["`+slowName()+`",443]`)
		},
		cancel: "cancelled", close: "cancelled", closed: "handle", flag: "timeout",
		handle: noHandle},
	{method: "tls.NewClient", phase: "connect", timeout: connect,
		begin:  func(c *caller) string { return c.blackHole() },
		cancel: "cancelled", close: "cancelled", closed: "handle", flag: "timeout",
		handle: noHandle},

	{method: "tls.Handshake", phase: "the peer says nothing", timeout: handshake,
		begin:  func(c *caller) string { return c.handshaking("") },
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Handshake", phase: "half a ServerHello", timeout: handshake,
		begin:  func(c *caller) string { return c.handshaking(halfServerHello) },
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Handshake", phase: "behind a NewClient", timeout: connect,
		begin: func(c *caller) string {
			c.blackHole()
			return c.call("tls.Handshake", "[1]")
		},
		cancel: "cancelled", close: "cancelled", closed: "handle", flag: "handle",
		handle: noBound},

	{method: "tls.Read", phase: "the peer says nothing", timeout: reading,
		begin: func(c *caller) string {
			c.ready(nil)
			c.bound(1)
			return c.call("tls.Read", "[1,100]")
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Read", phase: "half a record", timeout: reading,
		begin: func(c *caller) string {
			sent := make(chan struct{})
			c.ready(func(nc *net.TCPConn) {
				io.WriteString(nc, halfRecord)
				close(sent)
			})
			<-sent
			c.bound(1)
			return c.call("tls.Read", "[1,100]")
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Read", phase: "in a batch", timeout: reading,
		begin: func(c *caller) string {
			c.ready(nil)
			c.bound(1)
			c.send(
				`[{"jsonrpc":"2.0","id":"b","method":"tls.Read","params":[1,100]},{"jsonrpc":"2.0","id":"b2","method":"tls.Backend"}]` + "\n")
			return `"b"`
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Read", phase: "behind a Read", timeout: reading,
		begin: func(c *caller) string {
			c.ready(nil)
			c.call("tls.Read", "[1,100]")
			c.bound(1)
			return c.call("tls.Read", "[1,100]")
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Read", phase: "behind a Handshake", timeout: handshake,
		begin: func(c *caller) string {
			c.handshaking("")
			return c.call("tls.Read", "[1,100]")
		},
		cancel: "cancelled", close: "cancelled", flag: "state", handle: "state"},

	{method: "tls.Write", phase: "a full socket", timeout: writing,
		begin: func(c *caller) string {
			c.ready(nil)
			c.bound(1)
			return c.write(1, much)
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Write", phase: "a full socket, base64", timeout: writing,
		begin: func(c *caller) string {
			c.ready(nil)
			c.bound(1)
			return c.call("tls.Write",
				`[1,"`+base64.StdEncoding.EncodeToString(make([]byte, much))+`"]`)
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Write", phase: "behind a Write", timeout: writing,
		begin: func(c *caller) string {
			c.ready(nil)
			c.bound(1)
			c.write(1, much)
			return c.write(1, 1)
		},
		cancel: "cancelled", close: "cancelled", flag: "state", handle: "state"},
	{method: "tls.Write", phase: "behind a Handshake", timeout: handshake,
		begin:  func(c *caller) string { c.handshaking(""); return c.write(1, 1) },
		cancel: "cancelled", close: "cancelled", flag: "state", handle: "state"},

	{method: "tls.Handshake", phase: "the peer says nothing, with a data channel",
		timeout: handshake,
		begin: func(c *caller) string {
			c.open(func(nc *net.TCPConn) { io.Copy(io.Discard, nc) })
			c.bound(1)
			id, _ := c.callWithChannel("tls.Handshake", "[1,1]")
			return id
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Flush", phase: "a full socket", timeout: writing, drained: true,
		begin: func(c *caller) string {
			c.full()
			return c.call("tls.Flush", fmt.Sprintf("[1,%d]", tooMuch))
		},
		cancel: "cancelled", close: drains, flag: "timeout", handle: "timeout"},
	{method: "tls.Shutdown", phase: "a full socket", timeout: writing, drained: true,
		begin:  func(c *caller) string { c.full(); return c.call("tls.Shutdown", "[1]") },
		cancel: "cancelled", close: drains, flag: "timeout", handle: "timeout"},
	{method: "tls.Close", phase: "a full socket, with a data channel", timeout: writing,
		drained: true,
		begin:   func(c *caller) string { c.full(); return c.call("tls.Close", "[1]") },
		cancel:  "cancelled", close: closes, flag: "timeout", handle: "timeout"},
	{method: "tls.Status", phase: "behind a Handshake", timeout: handshake,
		begin: func(c *caller) string {
			c.handshaking("")
			return c.call("tls.Status", "[1]")
		},
		cancel: "cancelled", close: "cancelled", flag: "state", handle: "state"},

	{method: "tls.Accept", phase: "nobody comes", timeout: accepting,
		begin: func(c *caller) string {
			port := c.server()
			c.bound(1)
			return c.accept(port)
		},
		cancel: "cancelled", close: "cancelled", closer: "tls.CloseServerContext",
		flag: "timeout", handle: "timeout"},
	{method: "tls.Accept", phase: "name look-up", timeout: connect,
		begin: func(c *caller) string {
			c.server()
			c.bound(1)
			return c.call("tls.Accept", `[1,"`+slowName()+`",443]`)
		},
		cancel: "cancelled", close: "cancelled", closer: "tls.CloseServerContext",
		flag: "timeout", handle: "timeout"},
	{method: "tls.Accept", phase: "a client that says nothing", timeout: greeting,
		begin:  func(c *caller) string { return c.dawdler("") },
		cancel: "cancelled", close: "cancelled", closer: "tls.CloseServerContext",
		flag: "timeout", handle: "timeout"},
	{method: "tls.Accept", phase: "half a ClientHello", timeout: greeting,
		begin:  func(c *caller) string { return c.dawdler(halfClientHello) },
		cancel: "cancelled", close: "cancelled", closer: "tls.CloseServerContext",
		flag: "timeout", handle: "timeout"},
	{method: "tls.Accept", phase: "beside an Accept", timeout: accepting,
		begin: func(c *caller) string {
			port := c.server()
			c.accept(port)
			c.bound(1)
			return c.accept(port)
		},
		cancel: "cancelled", close: "cancelled", closer: "tls.CloseServerContext",
		flag: "timeout", handle: "timeout"},

	{method: "tls.ReadPlain", phase: "the peer says nothing", timeout: reading,
		begin: func(c *caller) string {
			c.silent()
			c.bound(1)
			return c.call("tls.ReadPlain", "[1,100]")
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.WritePlain", phase: "a full socket", timeout: writing,
		begin: func(c *caller) string {
			c.silent()
			c.bound(1)
			return c.call("tls.WritePlain",
				`[1,"`+base64.StdEncoding.EncodeToString(make([]byte, much))+`"]`)
		},
		cancel: "cancelled", close: "cancelled", flag: "timeout", handle: "timeout"},
	{method: "tls.Listen", phase: "name look-up", timeout: connect,
		begin: func(c *caller) string {
			c.server()
			return c.call("tls.Listen", `[1,"`+slowName()+`",443]`)
		},
		cancel: "cancelled", close: "cancelled", closer: "tls.CloseServerContext",
		flag: "timeout", handle: noBound},

	{method: "tls.Wait", phase: "nothing is ready",
		begin: func(c *caller) string {
			c.ready(nil)
			c.ok("tls.SetOption", `[1,"watch","1"]`)
			return c.call("tls.Wait", "[-1]")
		},
		cancel: "cancelled", close: "no: it waits for all watched handles",
		flag: "no: its bound is its parameter", handle: "no: its bound is its parameter"},

	// This tls.Close is answered at once, and then waits for the peer to take the data.
	{method: "tls.Close", phase: "the peer takes nothing", timeout: closing,
		begin: func(c *caller) string {
			c.ready(nil)
			c.answer(c.write(1, 640<<10)) // most of it waits in the kernel
			return c.call("tls.Close", "[1]")
		},
		cancel: ok, close: closes, flag: ok, handle: "no: SetTimeout does not limit it",
		caller: "no: what was written may still arrive, within the timeout"},
	{method: "tls.Close", phase: "its turn, behind a Read", timeout: reading,
		begin: func(c *caller) string {
			c.ready(nil)
			c.bound(1)
			c.call("tls.Read", "[1,100]")
			return c.call("tls.Close", "[1]")
		},
		cancel: ok, close: closes, flag: ok, handle: ok},
	{method: "tls.CloseServerContext", phase: "its turn, behind an Accept", timeout: accepting,
		begin: func(c *caller) string {
			port := c.server()
			c.bound(1)
			c.accept(port)
			return c.call("tls.CloseServerContext", "[1]")
		},
		cancel: ok, close: closes, flag: ok, handle: ok},
	{method: "tls.LastError", phase: "its turn, behind a Read", timeout: reading,
		begin: func(c *caller) string {
			c.ready(nil)
			c.bound(1)
			c.call("tls.Read", "[1,100]")
			return c.call("tls.LastError", "[]")
		},
		cancel: ok, close: ok, flag: ok, handle: ok},

	behindAHandshake("tls.PeerCertSubject", "[1]"),
	behindAHandshake("tls.Version", "[1]"),
	behindAHandshake("tls.SetInsecureSkipVerify", "[1,1]"),
	behindAHandshake("tls.SetTimeout", "[1,5000]"),
	behindAHandshake("tls.SetOption", `[1,"alpn","h2"]`),
	behindAHandshake("tls.Handshake", "[1]"),
}

// behindAHandshake returns the row of a call that waits only for an earlier Handshake.
func behindAHandshake(method, params string) wait {
	return wait{method: method, phase: "behind a Handshake", timeout: handshake,
		begin:  func(c *caller) string { c.handshaking(""); return c.call(method, params) },
		cancel: "cancelled", close: "cancelled", flag: "state", handle: "state"}
}

// These methods wait only until the calls before them have begun, or for a file.
var instant = []string{
	"tls.NewServerContext", "tls.SetCaBundle", "tls.SetCertificate", "tls.Backend", "tls.Hello",
	"tls.Info", "tls.Signal", "rpc.discover", "$/cancelRequest",
}

// blackHole begins a NewClient whose connect gets no answer. The connection is handle 1.
func (c *caller) blackHole() string {
	return c.call("tls.NewClient", fmt.Sprintf(`["127.0.0.1",%d]`, testkit.Unanswered(c.t)))
}

// handshaking begins a Handshake with a peer that answers the ClientHello with the text in says,
// and then sends nothing more.
func (c *caller) handshaking(says string) string {
	met := make(chan struct{})
	c.open(func(nc *net.TCPConn) {
		nc.Read(make([]byte, 1<<10))
		io.WriteString(nc, says)
		close(met)
		<-c.t.Context().Done()
	})
	c.bound(1)
	id := c.call("tls.Handshake", "[1]")
	<-met
	return id
}

func (c *caller) accept(port int) string {
	return c.call("tls.Accept", fmt.Sprintf(`[1,"127.0.0.1",%d]`, port))
}

// dawdler begins an Accept with a client that sends the text in says, and then nothing more.
func (c *caller) dawdler(says string) string {
	port := c.server()
	c.bound(1)
	id := c.accept(port)
	c.dial(port, says)
	return id
}

// expects returns how the call must end by this way, and whether the way exists for the call.
func (w *wait) expects(by way) (string, bool) {
	kind := ""
	switch by {
	case byCaller:
		kind = w.caller
	case byCancel:
		kind = w.cancel
	case byClose:
		kind = w.close
	case byFlag:
		kind = w.flag
	case byHandle:
		kind = w.handle
	}
	return kind, !strings.HasPrefix(kind, "no:")
}

// TestEveryWaitCanBeEnded ends every wait in every way that exists for it, and checks that nothing
// is left open. If a timeout ends the wait, it is short. All other timeouts are an hour, or not
// set; only the rows with drained also have a short close timeout.
func TestEveryWaitCanBeEnded(t *testing.T) {
	lib := load(t)
	cert := testcert.SelfSigned(t, testcert.Leaf{CN: "localhost"})
	// Some things that the first session of a process opens are never closed. So this session
	// must come before goroutines and descriptors are counted.
	newCaller(t, lib, cert, byCaller, session.Timeouts{}).ready(nil)
	before, descriptors := goleak.IgnoreCurrent(), openDescriptors(t)
	product := 0
	t.Run("each", func(t *testing.T) {
		for i := range waits {
			w := &waits[i]
			for by := range ways {
				if kind, exists := w.expects(by); !exists {
					t.Logf("%s, %s: not by %s: %s", w.method, w.phase, by,
						strings.TrimPrefix(kind, "no: "))
					continue
				}
				product++
				t.Run(fmt.Sprintf("%s, %s, by %s", w.method, w.phase, by),
					func(t *testing.T) {
						t.Parallel()
						w.end(t, newCaller(t, lib, cert, by, w.bounds(by)))
					})
			}
		}
	})
	t.Logf("%d waits, %d ways, %d combinations that exist", len(waits), ways, product)
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	if now := openDescriptors(t); now > descriptors {
		t.Errorf("%d descriptors are open after all waits, %d before", now, descriptors)
	}
}

// bounds are the timeouts of a session whose wait will be ended by this way.
func (w *wait) bounds(by way) session.Timeouts {
	t := session.Timeouts{Connect: era, Handshake: era, AcceptHandshake: era,
		Write: era, Close: era}
	if w.drained {
		t.Close = moment
	}
	if by == byFlag {
		w.timeout(&t)
	}
	return t
}

// w.end begins the wait w, ends it in the way c.way, and checks how the call has ended.
func (w *wait) end(t *testing.T, c *caller) {
	id := w.begin(c)
	c.settle()
	want, _ := w.expects(c.way)
	switch c.way {
	case byCaller:
		c.conn.Close()
		c.ended()
		return
	case byDaemon:
		c.stop()
		c.ended()
		<-c.over // the caller has read to the end of the connection
		return
	case byCancel:
		c.notify("$/cancelRequest", "["+id+"]")
	case byClose:
		closer, closed := w.closer, w.closed
		if closer == "" {
			closer = "tls.Close"
		}
		if closed == "" {
			closed = ok
		}
		if a := c.answer(c.call(closer, "[1]")); a.kind() != closed {
			t.Errorf("%s ends with %s (%v), want %s", closer, a.kind(), a.err, closed)
		}
	}
	if a := c.answer(id); a.kind() != want {
		t.Errorf("the waiting call has ended with %s (%v), want %s", a.kind(), a.err, want)
	}
	c.settle() // fails if the session has ended, too
	if c.way == byFlag && w.caller != "" {
		c.conn.Close()
		c.ended()
	}
}

// TestEveryMethodIsThere: each method of tlsd is in the table waits or in the list instant.
func TestEveryMethodIsThere(t *testing.T) {
	t.Parallel()
	c := newCaller(t, load(t), nil, byCaller, session.Timeouts{})
	var doc struct{ Methods []struct{ Name string } }
	if err := json.Unmarshal([]byte(c.ok("rpc.discover", "[]")), &doc); err != nil ||
		len(doc.Methods) == 0 {
		t.Fatal("rpc.discover must list the methods; the error and the list:", err, doc)
	}
	known := map[string]bool{}
	for _, name := range instant {
		known[name] = true
	}
	for _, w := range waits {
		known[w.method] = true
	}
	for _, m := range doc.Methods {
		if !known[m.Name] {
			t.Errorf("%s is neither in waits nor in instant", m.Name)
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
