package session_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

const local = "127.0.0.1"

// listening returns a context that listens on a port, although no Accept waits.
func (r *rig) listening() (ctx session.Handle, port int) {
	r.t.Helper()
	ctx, port = r.server(), testkit.Port(r.t)
	_, before := r.eng.Open()
	c := r.start(r.Accept(ctx, local, port))
	probe := r.dial(port)
	r.ok(r.Close(c.ok().(session.Handle)))
	probe.Close()
	testkit.Until(r.t, "the connection that was closed is freed", func() bool {
		_, conns := r.eng.Open()
		return conns == before
	})
	return ctx, port
}

func TestAcceptedConnectionTalks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.server(), testkit.Port(t)
	c := r.start(r.Accept(ctx, local, port))
	peer := r.dial(port)
	h := c.ok().(session.Handle)
	if h != 2 {
		t.Errorf("got handle %d, want 2", h)
	}
	if v := r.ok(r.Handshake(h)); v != 0 { // Accept has done the handshake
		t.Errorf("Handshake returned %v, want 0", v)
	}
	fmt.Fprint(peer, "ping")
	if got := string(r.ok(r.Read(h, 100)).([]byte)); got != "ping" {
		t.Errorf("read %q, want \"ping\"", got)
	}
	r.ok(r.Write(h, []byte("pong")))
	buf := make([]byte, 4)
	if _, err := peer.Read(buf); err != nil || string(buf) != "pong" {
		t.Errorf("the peer read %q, %v; want \"pong\"", buf, err)
	}
	if got := r.ok(r.PeerCertSubject(h)); got != "" {
		t.Errorf("the client has shown no certificate, but its subject is %q", got)
	}
	if got := r.ok(r.ConnectionVersion(h)); got != "TLSv1.3" {
		t.Errorf("the version is %q, want TLSv1.3", got)
	}
}

// TestListenerStaysOpenBetweenAccepts: clients that come between two Accepts wait, and are not
// refused.
func TestListenerStaysOpenBetweenAccepts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.listening()
	for range 3 {
		r.dial(port) // the whole handshake, while no Accept waits
	}
	seen := map[session.Handle]bool{}
	for range 3 {
		seen[r.handle(r.Accept(ctx, local, port))] = true
	}
	if len(seen) != 3 {
		t.Errorf("3 Accepts have returned %d different handles, want 3", len(seen))
	}
}

func TestOneContextListensOnSeveralAddresses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := r.server()
	ports := []int{testkit.Port(t), testkit.Port(t)}
	a, b := r.start(r.Accept(ctx, local, ports[0])),
		r.start(r.Accept(ctx, "localhost", ports[1]))
	r.dial(ports[1])
	b.ok()
	if a.ended() {
		t.Error("the client of one address has ended the Accept of the other address")
	}
	r.dial(ports[0])
	a.ok()
}

// TestClientsWithoutAFinishedHandshakeDelayNoOther: many clients never finish their handshake. A
// client that finishes its handshake is accepted.
func TestClientsWithoutAFinishedHandshakeDelayNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{AcceptHandshake: time.Hour}))
	ctx, port := r.listening()
	const n = 20
	for i := range n {
		nc := dialTCP(t, port)
		if i%2 == 0 {
			nc.Write([]byte{0x16, 3, 1}) // the beginning of a ClientHello
		}
	}
	testkit.Until(t, "all clients without a finished handshake are connected", func() bool {
		_, conns := r.eng.Open()
		return conns == n
	})
	c := r.start(r.Accept(ctx, local, port))
	r.dial(port)
	c.ok()
}

// TestFailedHandshakeIsRaisedOnce: one Accept fails with the error of the handshake. The next
// Accept gets the next client.
func TestFailedHandshakeIsRaisedOnce(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(net.Conn){
		"plain HTTP":   func(nc net.Conn) { fmt.Fprint(nc, "GET / HTTP/1.0\r\n\r\n") },
		"gone at once": func(nc net.Conn) { nc.Close() },
		"reset":        func(nc net.Conn) { nc.(*net.TCPConn).SetLinger(0); nc.Close() },
		"distrust": func(nc net.Conn) {
			tls.Client(nc, &tls.Config{ServerName: "localhost"}).Handshake()
		},
		"no common TLS": func(nc net.Conn) {
			old := &tls.Config{InsecureSkipVerify: true,
				MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
			tls.Client(nc, old).Handshake()
		},
		"random garbage": func(nc net.Conn) {
			nc.Write(bytes.Repeat([]byte{0x16, 0xff, 7}, 100))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			ctx, port := r.server(), testkit.Port(t)
			c := r.start(r.Accept(ctx, local, port))
			nc := dialTCP(t, port)
			spoil(nc)
			e := c.fails(kind.Handshake)
			if e.Handle != ctx || !strings.Contains(e.Why, "client 127.0.0.1:") {
				t.Errorf("handle %d, %q: want the context's handle and the "+
					"client's address", e.Handle, e)
			}
			next := r.start(r.Accept(ctx, local, port))
			r.dial(port)
			if h := next.ok(); h != session.Handle(3) {
				t.Errorf("got handle %v, want 3: the failed Accept has taken 2", h)
			}
		})
	}
}

func TestAcceptHandshakeTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{AcceptHandshake: 50 * time.Millisecond}))
	ctx, port := r.server(), testkit.Port(t)
	c := r.start(r.Accept(ctx, local, port))
	dialTCP(t, port)
	if e := c.fails(kind.Timeout); !strings.Contains(e.Why, "no handshake within 50ms") {
		t.Errorf("the error is %q, want \"no handshake within 50ms\" in it", e)
	}
}

func TestAcceptOnAnAddressThatCannotBeHad(t *testing.T) {
	t.Parallel()
	t.Run("in use", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ctx, port := r.server(), testkit.Silent(t)
		for range 2 {
			e := r.fails(r.Accept(ctx, local, port), kind.Connect)
			says := fmt.Sprintf("listen on 127.0.0.1:%d: address already in use", port)
			if e.Errno != "EADDRINUSE" || !strings.Contains(e.Why, says) {
				t.Errorf("the errno is %q and the error %q, want EADDRINUSE and "+
					"the address", e.Errno, e)
			}
		}
	})
	t.Run("in use by another context, and free again", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		first, port := r.listening()
		second := r.server()
		r.fails(r.Accept(second, local, port), kind.Connect)
		r.ok(r.CloseServerContext(first))
		c := r.start(r.Accept(second, local, port))
		r.dial(port)
		c.ok()
	})
	t.Run("not of this machine", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		e := r.fails(r.Accept(r.server(), "192.0.2.1", 1), kind.Connect)
		if e.Errno != "EADDRNOTAVAIL" {
			t.Errorf("the errno is %q, want EADDRNOTAVAIL; the error is %q", e.Errno, e)
		}
	})
	t.Run("look-up without end", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, timeouts(session.Timeouts{Connect: 50 * time.Millisecond}))
		r.fails(r.Accept(r.server(), slowName(), 1), kind.Timeout)
	})
}

// TestCloseServerContextDropsUnclaimedClients: a client that no Accept has returned is
// disconnected, in its handshake or after it. An accepted connection stays open.
func TestCloseServerContextDropsUnclaimedClients(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{AcceptHandshake: time.Hour}))
	ctx, port := r.listening()
	claimed := r.start(r.Accept(ctx, local, port))
	talk := r.dial(port)
	h := claimed.ok().(session.Handle)
	// No Accept claims these two clients. The first has done its handshake, and the second has
	// not begun it.
	done := r.dial(port)
	half := dialTCP(t, port)
	testkit.Until(t, "the accepted connection and two clients are open", func() bool {
		_, conns := r.eng.Open()
		return conns == 3
	})
	r.ok(r.CloseServerContext(ctx))

	if contexts, conns := r.eng.Open(); contexts != 0 || conns != 1 {
		t.Errorf("%d contexts and %d connections are open, want none and the accepted one",
			contexts, conns)
	}
	for name, c := range map[string]net.Conn{"done": done, "half": half} {
		c.SetReadDeadline(time.Now().Add(testkit.Patience))
		if _, err := c.Read(make([]byte, 1)); err == nil ||
			strings.Contains(err.Error(), "timeout") {
			t.Errorf("handshake %s: the client must be disconnected, but its Read "+
				"returns %v", name, err)
		}
	}
	unlistened(t, port)
	fmt.Fprint(talk, "on")
	if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "on" {
		t.Errorf("the accepted connection read %q, want \"on\"", got)
	}
}

// TestPendingClientsAreBounded: clients beyond the limit stay in the kernel's backlog. None is
// lost.
func TestPendingClientsAreBounded(t *testing.T) {
	t.Parallel()
	const limit, clients = 3, 10
	r := newRig(t, limits(session.Limits{Pending: limit}))
	ctx, port := r.listening()
	hello := make(chan error, clients)
	for range clients {
		nc := dialTCP(t, port)
		go func() {
			c := tls.Client(nc, r.clientConfig())
			c.SetDeadline(time.Now().Add(testkit.Patience))
			hello <- c.Handshake()
		}()
	}
	for range limit {
		if err := <-hello; err != nil {
			t.Fatal(err)
		}
	}
	if _, conns := r.eng.Open(); conns > limit {
		t.Errorf("%d connections are open before any Accept, the limit is %d", conns, limit)
	}
	for range clients {
		r.ok(r.Close(r.handle(r.Accept(ctx, local, port))))
		// After its Close, a connection may still be ending in the background.
		testkit.Until(t, "no more connections are open than the limit", func() bool {
			_, conns := r.eng.Open()
			return conns <= limit
		})
	}
	for range clients - limit {
		if err := <-hello; err != nil {
			t.Errorf("the handshake of a client that had to wait has failed: %v", err)
		}
	}
}

func TestManyAcceptsShareTheClients(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.server(), testkit.Port(t)
	const n = 20
	var accepts []*running
	for range n {
		accepts = append(accepts, r.start(r.Accept(ctx, local, port)))
	}
	for range n {
		go tls.Client(dialTCP(t, port), r.clientConfig()).Handshake()
	}
	for i, a := range accepts {
		if h := a.ok(); h != session.Handle(i+2) {
			t.Errorf("Accept %d made handle %v, want the handles in order, from 2", i,
				h)
		}
	}
}

func TestEngineRefusesTheClient(t *testing.T) {
	t.Parallel()
	r := newRig(t, failing(fakeengine.Server, syscall.ENOMEM))
	ctx, port := r.server(), testkit.Port(t)
	c := r.start(r.Accept(ctx, local, port))
	dialTCP(t, port)
	c.fails(kind.Internal)
}
