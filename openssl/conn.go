package openssl

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// A Conn is one TLS connection. Close it, or its SSL is never freed.
//
// All methods are safe for concurrent use. One Read and one Write run side by
// side, neither waits for the other; several Reads wait for one another, and so do several Writes.
//
//	new ──Handshake ok──▶ established ──Close──▶ closed
//	 │                        │
//	 └─────error──────▶ failed ◀─┘   only Close is left; Read, Write and Handshake give the error again
//
// An established connection has two directions, and each can end alone: reading at the peer's close_notify
// (io.EOF) or when the peer cuts its direction (ErrTruncated); writing at CloseWrite (ErrShut), when a send fails, and when
// a Write is given up in the middle (ErrWriteBroken). The end of a context is no error of the connection.
type Conn struct {
	lib     *Library
	nc      *net.TCPConn
	raw     syscall.RawConn
	client  bool
	peer    peerName // whom a client expects
	store   string   // what a client trusts, for people
	trust   string   // likewise, for resumption
	tls13   bool     // nothing older is spoken
	verdict *verdict // of the verification that the handshake does, if it does one

	settings *serverSettings     // a server's, held; nil for clients and once the SSL is freed
	pins     [][sha256.Size]byte // of a client; set before the handshake
	tag      atomic.Int32

	done   chan struct{} // closed when Close begins
	closer sync.Once

	lifeMu sync.Mutex // guards the next three
	closed bool
	users  int           // calls that are under way
	idle   chan struct{} // if not nil, closed when the last of them has left

	writing sem // held by a Write, Handshake or CloseWrite
	reading sem // held by who waits for something to read (io.go)

	mu        sync.Mutex    // held for one stay in the library and the sends around it, which never wait; guards the rest
	ssl       uintptr       // 0 once it is freed
	wbio      uintptr       // the thread's BIO that the SSL writes to
	readErr   error         // why nothing can be read any more: no SSL_read
	writeErr  error         // why nothing can be written any more: no SSL_write
	failed    error         // why neither is possible any more
	out       outbox        // what is sealed and not sent
	sending   bool          // the holder of writing waits for room for it, and sends it when there is some
	mute      bool          // nothing goes out any more: a send has failed, or was given up
	whole     int           // when it became mute: the records of what was being sent that have left whole
	shut      bool          // close_notify is sealed, so that nothing can follow it
	sendErrno syscall.Errno // why a send has failed
	begun     bool          // Handshake has been called
	identity  bool          // a client's: it has a certificate to show
	refused   bool          // the peer has asked for a renegotiation
	verify    bool          // a client's; does not change once begun is set
	resume    *resumption   // a client's; nil: it neither resumes nor keeps sessions

	established      atomic.Bool // the handshake is done
	subject, version string      // set before established is
}

// newConn makes the SSL for a connection. It owns nc.
func (c *Context) newConn(nc *net.TCPConn, name peerName) (_ *Conn, err error) {
	defer func() {
		if err != nil {
			nc.Close()
		}
	}()
	l := c.lib
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd uintptr
	if err := raw.Control(func(n uintptr) { fd = n }); err != nil {
		return nil, err
	}
	cn := &Conn{
		lib: l, nc: nc, raw: raw, client: !c.server, peer: name, store: c.store, trust: c.trust, verify: !c.server, tls13: c.min == tls13,
		done:    make(chan struct{}),
		reading: newSem(), writing: newSem(),
	}

	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.ctx == 0 {
		return nil, ErrFreed
	}
	if c.settings != nil {
		cn.settings = c.settings.hold()
	}
	ok, expects := false, true
	q := l.exclusive(func() {
		if cn.ssl = call(l.sym.sslNew, c.ctx); cn.ssl == 0 {
			return
		}
		ok = int32(call(l.sym.sslSetRfd, cn.ssl, fd)) == 1
		if c.min != 0 {
			ok = ok && int64(call(l.sym.sslCtrl, cn.ssl, ctrlSetMinProto, c.min, 0)) == 1
		}
		if c.server {
			call(l.sym.sslSetAcceptState, cn.ssl)
			return
		}
		call(l.sym.sslSetConnectState, cn.ssl)
		expects = l.expect(cn.ssl, name)
		ok = ok && expects
	})
	if !ok {
		cn.free()
		if !expects && len(q) == 0 { // since 4.0 OpenSSL has rules of its own for what can be a name
			return nil, fmt.Errorf("%q is not a host name to %s", name, l.version)
		}
		return nil, internalError("SSL_new", q)
	}
	if cn.client || c.clientAuth != ClientAuthNone {
		cn.verdict = &verdict{}
		l.verdicts.Store(cn.ssl, cn.verdict)
	}
	return cn, nil
}

// free frees the SSL. Nobody else uses it any more.
func (c *Conn) free() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ssl != 0 {
		c.lib.verdicts.Delete(c.ssl)
		c.dropSessions()
		c.lib.exclusive(func() { call(c.lib.sym.sslFree, c.ssl) })
		c.ssl = 0
		c.out.drop()
	}
	if c.settings != nil {
		c.settings.release()
		c.settings = nil
	}
}

// enter says that a call uses the SSL until leave. It fails with net.ErrClosed.
func (c *Conn) enter() error {
	c.lifeMu.Lock()
	defer c.lifeMu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.users++
	return nil
}

func (c *Conn) leave() {
	c.lifeMu.Lock()
	defer c.lifeMu.Unlock()
	c.users--
	if c.idle != nil && c.users == 0 {
		close(c.idle)
	}
}

// enterReady is enter for what needs a handshake that is done. It has not entered if it fails.
func (c *Conn) enterReady() error {
	if err := c.enter(); err != nil {
		return err
	}
	err := c.ready()
	if err != nil {
		c.leave()
	}
	return err
}

// ready tells why there is nothing to be read or written yet.
func (c *Conn) ready() error {
	if c.established.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr != nil {
		return c.readErr
	}
	return ErrNoHandshake
}

// SetVerify turns the verification of the server's certificate on, as it is at
// first, or off. It fails with ErrServerSide, with ErrHandshakeDone, or with net.ErrClosed.
func (c *Conn) SetVerify(on bool) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	if !c.client {
		return ErrServerSide
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun {
		return ErrHandshakeDone
	}
	c.verify = on
	mode := uintptr(verifyNone)
	if on {
		mode = verifyPeer
	}
	c.lib.exclusive(func() { call(c.lib.sym.sslSetVerify, c.ssl, mode, c.lib.verifyCB) })
	return nil
}

// Handshake does the TLS handshake. Once it has succeeded, it does nothing. The error is a *VerifyError, a
// *HandshakeError, net.ErrClosed, or that of ctx; after the latter, Handshake may be called again to go on.
func (c *Conn) Handshake(ctx context.Context) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	if c.established.Load() {
		return nil
	}
	if err := c.writing.lock(ctx, c.done); err != nil {
		return err
	}
	defer c.writing.unlock()
	if c.established.Load() {
		return nil
	}
	c.mu.Lock()
	if !c.begun {
		c.begun = true
		c.offerSession()
	}
	c.mu.Unlock()
	// A handshake waits for the peer most of the time, a server's all the time.
	o := c.op()
	defer o.giveBack()
	if _, err := o.run(ctx, opHandshake, nil); err != nil {
		return err
	}
	return c.establish()
}

// establish looks at what the handshake has brought.
func (c *Conn) establish() error {
	l := c.lib
	c.mu.Lock()
	defer c.mu.Unlock()
	var cert uintptr
	var code int
	told := true
	q := l.exclusive(func() {
		c.version = goString(call(l.sym.sslGetVersion, c.ssl))
		code = int(int64(call(l.sym.sslGetVerifyResult, c.ssl)))
		if cert = call(l.sym.sslGetPeerCertificate, c.ssl); cert != 0 {
			c.subject, told = l.subject(cert)
			call(l.sym.x509Free, cert)
		}
	})
	if c.client && c.verify {
		// Both cannot happen after a handshake with SSL_VERIFY_PEER. But the
		// result is "ok" too if there was nothing to verify (SSL_get_verify_result(3)).
		switch {
		case cert == 0:
			c.fail(&VerifyError{Code: -1, Reason: "the server has shown no certificate", Store: c.store})
		case code != 0:
			c.fail(l.verifyError(code, 0, c.subject, c.store, c.peer.String()))
		}
	}
	if !told { // "" would say that the peer has shown no certificate
		c.fail(&HandshakeError{Reason: "OpenSSL cannot tell the subject of the peer's certificate: " + q.reason(), Queue: q.strings()})
	}
	if c.sendErrno != 0 { // what ends the handshake has not left
		c.fail(c.handshakeFailure(&op{c: c, kind: opHandshake, errno: c.sendErrno}, nil))
	}
	if c.readErr != nil {
		return c.readErr
	}
	if err := c.checkPins(); err != nil {
		c.fail(err)
		return err
	}
	l.verdicts.Delete(c.ssl)
	c.verdict = nil
	c.settleOffer()
	c.keepFresh()
	c.established.Store(true)
	return nil
}

// SetTag gives the connection a number by which the library's Watcher can tell it.
func (c *Conn) SetTag(tag int32) { c.tag.Store(tag) }

// Read waits for data and gives what is there: at least one byte, unless p is
// empty, and as much of p as is filled without waiting.
//
// The error is io.EOF after the peer's close_notify (also of every later Read), ErrTruncated, a
// *ProtocolError, one that wraps a syscall.Errno, ErrNoHandshake, net.ErrClosed, or that of ctx. A Read that ctx has
// ended has lost nothing. A Write that has failed does not keep a Read from what has arrived.
func (c *Conn) Read(ctx context.Context, p []byte) (int, error) {
	o, err := c.reader()
	if o == nil {
		return 0, err
	}
	defer c.leave()
	defer o.giveBack()
	if len(p) == 0 {
		return 0, nil
	}
	return o.run(ctx, opRead, p)
}

// reader is an op for what is to be read. With an error there is none, and c is not entered.
func (c *Conn) reader() (*op, error) {
	if err := c.enterReady(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	err := c.readErr
	c.mu.Unlock()
	if err != nil { // without a wait for a WaitReset
		c.leave()
		return nil, err
	}
	return c.op(), nil
}

// someBytes is the most that one ReadSome gives: the data of eight records.
const someBytes = 8 * fullRecord

// someMemory is memory for ReadSome that is not in use.
var someMemory = sync.Pool{New: func() any { return new([someBytes]byte) }}

// Recycle takes back what a ReadSome has returned, for a later one. Nobody may use it any more. It need not be called.
func Recycle(p []byte) {
	if cap(p) == someBytes {
		someMemory.Put((*[someBytes]byte)(p[:someBytes]))
	}
}

// ReadSome is Read into memory of its own, at most limit bytes, which must be positive. It has the memory only while it looks
// for something to read, so that any number of them can wait. With an error there is no data. See Recycle.
func (c *Conn) ReadSome(ctx context.Context, limit int) ([]byte, error) {
	o, err := c.reader()
	if o == nil {
		return nil, err
	}
	defer c.leave()
	defer o.giveBack()
	return o.runSome(ctx, limit)
}

// Write sends all of p, or fails; n is the number of bytes that are known to have left: the system has taken them, in records
// that are whole. An empty p sends nothing. The peer's close_notify does not keep us from writing.
//
// The error is ErrShut, ErrWriteBroken, one that wraps a syscall.Errno when the system cannot send, the connection's own
// (see Read) when it has failed, also while the Write was waiting, net.ErrClosed, or that of ctx. Except for the last, all later Writes fail,
// too. If ctx ends a Write whose data has left in part, nothing can follow that, and later Writes give ErrWriteBroken. If a
// send has failed, Reads go on; when they meet the peer's alert, that is the error of later Writes.
func (c *Conn) Write(ctx context.Context, p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, c.idleWrite()
	}
	return c.outgoing(ctx, opWrite, p)
}

// idleWrite is a Write of nothing.
func (c *Conn) idleWrite() error {
	err := c.enterReady()
	if err == nil {
		c.leave()
	}
	return err
}

// CloseWrite sends close_notify behind what was written. Reads go on; later Writes give ErrShut. It fails as a
// Write does. A second one does nothing.
func (c *Conn) CloseWrite(ctx context.Context) error {
	_, err := c.outgoing(ctx, opShutdown, nil)
	if err == ErrShut {
		return nil
	}
	return err
}

// outgoing is a Write or a CloseWrite.
func (c *Conn) outgoing(ctx context.Context, kind opKind, p []byte) (n int, err error) {
	if err := c.enterReady(); err != nil {
		return 0, err
	}
	defer c.leave()
	if err := c.writing.lock(ctx, c.done); err != nil {
		return 0, err
	}
	defer c.writing.unlock()
	o := c.op()
	defer o.giveBack()
	return o.run(ctx, kind, p)
}

// WaitReset waits, after a Read has given io.EOF or ErrTruncated, for what can still come: that
// the peer's system resets the connection, or answers no more. It returns that error, which is from then on the one
// of Writes; the connection's if that has failed; net.ErrClosed, or that of ctx.
func (c *Conn) WaitReset(ctx context.Context) error {
	if err := c.enterReady(); err != nil {
		return err
	}
	defer c.leave()
	c.mu.Lock()
	err := c.readErr
	c.mu.Unlock()
	if err == nil {
		return errors.New("WaitReset comes before the end of what can be read")
	}
	o := c.op()
	defer o.giveBack()
	_, err = o.run(ctx, opReset, nil)
	return err
}

// PeerSubject is the subject of the peer's certificate in OpenSSL's one-line form, "/C=DE/CN=example.com"
// (X509_NAME_oneline(3)): ASCII, other bytes as \xNN, of any length. It is "" before the handshake, and if the peer has
// shown no certificate, as clients do. It stays after Close.
func (c *Conn) PeerSubject() string {
	if !c.established.Load() {
		return ""
	}
	return c.subject
}

// Version is the negotiated version, "TLSv1.3" or "TLSv1.2", or "" before the
// handshake. It stays after Close.
func (c *Conn) Version() string {
	if !c.established.Load() {
		return ""
	}
	return c.version
}

var _ io.Closer = (*Conn)(nil)
