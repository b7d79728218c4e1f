package session

import (
	"context"
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// A connSetup is what a connection needs until its handshake: the TCP connection, and the settings
// of the handshake. TLS begins with the handshake. Before it, scripts may exchange plain text (see
// starttls.go) and set options (see option.go).
//
// The session's lock guards a connSetup. The handshake takes the parts that it needs, and the
// method drop frees the rest. This method may wait for OpenSSL, so it is called without the lock.
type connSetup struct {
	tcp        *net.TCPConn // nil once TLS owns it
	serverName string       // of a client: the name to verify, and for SNI
	store      *trust       // of a client; it must be released (see trust.go)

	server *serverContext // of an accepted connection whose handshake comes later
	data   *channel       // the data channel that came with Accept

	insecure     bool
	noResumption bool // no TLS session is resumed or kept
	settings     openssl.ClientSettings
	lax          bool // the option eof is lax: an end without close_notify is no error
	plainUsed    bool // bytes have been exchanged in plain text
}

// setOpen gives the connection its TCP connection, and the state open.
func (c *connection) setOpen(b connSetup) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.setup = b
	c.local, c.remote = b.tcp.LocalAddr().String(), b.tcp.RemoteAddr().String()
	c.become(connOpen)
}

// drop frees what the handshake has not taken.
func (b *connSetup) drop() {
	if b.tcp != nil {
		b.tcp.Close() // this does not wait, because no linger is set
	}
	if b.store != nil {
		b.store.release()
	}
	if b.data != nil {
		b.data.close()
	}
}

// checkBeforeHandshake fails unless the state is open. s.mu must be held.
func (c *connection) checkBeforeHandshake() error {
	if err := c.stateError(); err != nil {
		return err
	}
	if c.state != connOpen {
		return fail(kind.State, "the handshake has been done already")
	}
	return nil
}

// startTLS makes the engine's connection, which owns the TCP connection from then on.
func (c *connection) startTLS() (EngineConn, error) {
	s := c.s
	s.mu.Lock()
	b := c.setup
	c.setup = connSetup{data: b.data}
	s.mu.Unlock()
	if !b.noResumption && b.server == nil {
		b.settings.Sessions, b.settings.Place = &s.sessions, c.peer
	}
	t, err := b.newEngineConn()
	if b.store != nil {
		b.store.release()
	}
	if err != nil {
		return nil, err
	}
	t.SetTag(int32(c.handle))
	if b.lax {
		t = laxConn{t}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.tls = t
	return t, nil
}

// newEngineConn makes the engine's connection of a client or a server, with its settings.
func (b *connSetup) newEngineConn() (EngineConn, error) {
	if b.server != nil {
		return b.server.newServer(b.tcp)
	}
	t, err := b.store.client(b.tcp, b.serverName)
	if err != nil {
		return nil, err
	}
	if b.insecure {
		err = t.SetVerify(false)
	}
	if err == nil && b.configured() {
		err = t.Configure(b.settings)
	}
	if err != nil {
		t.Abort()
		return nil, err
	}
	return t, nil
}

func (b *connSetup) configured() bool {
	s := &b.settings
	return s.ALPN != nil || s.Pins != nil || s.TLS13 || s.Identity != nil || s.Sessions != nil
}

// checkUnread fails if the peer has sent plain text that the caller has not read. After the change
// to TLS, a caller could take this text for protected text (RFC 3207 section 5, "STARTTLS
// injection"). A server does not check: the bytes may be the beginning of the client's handshake.
// If they are not, the handshake fails.
func (b *connSetup) checkUnread() error {
	if !b.plainUsed || b.server != nil {
		return nil
	}
	raw, err := b.tcp.SyscallConn()
	if err != nil {
		return fail(kind.IO, "%v", err)
	}
	n := 0
	raw.Control(func(fd uintptr) {
		n, _, _ = unix.Recvfrom(int(fd), make([]byte, 1),
			unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	if n > 0 {
		return fail(kind.State,
			"the peer has sent plain text that was not read; read all of it with "+
				"tls.ReadPlain before the handshake, or close the connection")
	}
	return nil
}

// A laxConn returns io.EOF if the peer ends the connection without close_notify. A connection uses
// it if the option eof is lax.
type laxConn struct{ EngineConn }

func (c laxConn) ReadSome(ctx context.Context, limit int) ([]byte, error) {
	data, err := c.EngineConn.ReadSome(ctx, limit)
	if errors.Is(err, openssl.ErrTruncated) {
		err = io.EOF
	}
	return data, err
}
