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

// A Conn is one TLS connection. Only Close, CloseContext, CutContext and Abort free its SSL.
//
// All methods are safe for concurrent use. One Read and one Write run side by side, and neither
// waits for the other. Several Reads take turns, and so do several Writes.
//
//	new ──Handshake ok──▶ established ──Close──▶ closed
//	 │                        │
//	 └─────error──────▶ failed ◀─┘   Reads and Writes return the error; call Close
//
// An established connection has two directions, and each can end alone. Reading ends at the peer's
// close_notify (io.EOF), or when the peer cuts its direction (ErrTruncated). Writing ends at
// CloseWrite (ErrShut), or when a send fails.
//
// If the context of an operation ends, the operation fails, and the connection goes on. There is
// one exception: if a Write or CloseWrite has sealed bytes that are not sent yet, writing ends
// (ErrWriteBroken).
type Conn struct {
	lib     *Library
	nc      *net.TCPConn
	raw     syscall.RawConn
	client  bool
	peer    peerName // of a client: the server that it expects
	store   string   // the trust store that verifies the peer, for error texts
	trust   string   // of a client: an id of this store, for resumption
	tls13   bool     // older versions are refused
	verdict *verdict // nil after the handshake, and if no certificate is asked for

	settings *serverSettings     // of a server; the Conn has a reference; nil after free
	pins     [][sha256.Size]byte // of a client: ClientSettings.Pins
	tag      atomic.Int32

	done   chan struct{} // closed when Close begins
	closer sync.Once

	lifeMu sync.Mutex // guards the next three fields
	closed bool
	users  int           // the number of calls that are running
	idle   chan struct{} // if not nil, it is closed when users becomes 0

	writing sem // held by a Write, Handshake or CloseWrite
	reading sem // held by the operation that waits for data (io.go)

	// A Write or CloseWrite sometimes must read first: the rest of a message of the handshake
	// layer (see inMessage). wanting is the number of Writes and CloseWrites that wait for
	// `reading` for this reason (lockReading).
	wanting atomic.Int32

	// mu guards the rest. An operation holds it for one stay in the library, and for the sends
	// before and after the stay. It never waits while it holds mu.
	mu       sync.Mutex
	ssl      uintptr // 0 once it is freed
	wbio     uintptr // the thread's BIO that the SSL writes to
	readErr  error   // if set, no SSL_read may follow; says why
	writeErr error   // if set, no SSL_write may follow; says why
	failed   error   // if set, the connection has failed; says why
	out      outbox  // sealed bytes, of which some are not sent yet
	sending  bool    // the holder of `writing` waits for the socket, and will send `out`
	mute     bool    // no byte may be sent any more: a send has failed, or was given up
	// When mute was set, out was dropped. By then the first `whole` records of out had been
	// sent completely.
	whole     int
	shut      bool          // close_notify is sealed, so nothing can follow it
	sendErrno syscall.Errno // why a send has failed
	begun     bool          // Handshake has been called
	identity  bool          // of a client: it has a certificate to show
	refused   bool          // the peer has asked for a renegotiation
	// inMessage says that the newest stay of a Read has ended in the middle of a message of the
	// handshake layer. Then an SSL_write may read the rest of the message from the socket, and
	// the data behind it. A Read that waits for the socket would not notice this data. So the
	// Write must wake this Read (wakeReader).
	inMessage bool
	verify    bool        // of a client: it verifies the server; constant after begun is set
	resume    *resumption // of a client; nil: no TLS session is resumed or kept

	established      atomic.Bool // the handshake is done
	subject, version string      // set before `established`, and constant from then on
}

// newConn makes a connection over nc. The connection owns nc. If newConn fails, it closes nc.
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
		lib: l, nc: nc, raw: raw, client: !c.server, peer: name, store: c.store,
		trust: c.trust, verify: !c.server, tls13: c.min == tls13,
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
			ok = ok && int64(call(l.sym.sslCtrl, cn.ssl, ctrlSetMinProto,
				c.min, 0)) == 1
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
		// Since 4.0 OpenSSL refuses host names of some forms, and queues no error.
		if !expects && len(q) == 0 {
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

// free frees the SSL, and releases the server's settings. Call it when no other goroutine uses the
// SSL any more.
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

// enter notes that a call uses the SSL. The call must end with leave. If Close has begun, enter
// fails with net.ErrClosed.
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

// enterReady does what enter does, and also fails if the handshake is not done. If it fails, do not
// call leave.
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

// ready returns nil if the handshake is done. Otherwise it returns the reason why not.
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

// SetVerify turns the verification of the server's certificate on or off. Without SetVerify it is
// on. SetVerify fails with ErrServerSide on the server's side, with ErrHandshakeDone if Handshake
// was called before, and with net.ErrClosed after Close.
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

// Handshake does the TLS handshake. If the handshake is done already, Handshake returns nil. The
// error is a *VerifyError, a *HandshakeError, net.ErrClosed, or the error of ctx. After an error of
// ctx, another call of Handshake goes on with the same handshake.
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
	o := c.op()
	defer o.giveBack()
	if _, err := o.run(ctx, opHandshake, nil); err != nil {
		return err
	}
	return c.establish()
}

// establish checks and stores the results of the handshake. If a check fails, so does the
// connection.
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
		// In both of these cases OpenSSL should have failed the handshake already. It is
		// not enough to check code, because code is 0 ("ok") also if the server has shown
		// no certificate (SSL_get_verify_result(3)).
		switch {
		case cert == 0:
			c.fail(&VerifyError{Code: -1, Reason: "the server has shown no certificate",
				Store: c.store})
		case code != 0:
			c.fail(l.verifyError(code, 0, c.subject, c.store, c.peer.String()))
		}
	}
	if !told {
		// The connection fails, because an empty subject would mean that the peer has shown
		// no certificate.
		c.fail(&HandshakeError{Reason: "OpenSSL cannot tell the subject of the peer's " +
			"certificate: " + q.reason(), Queue: q.strings()})
	}
	if c.sendErrno != 0 { // our final message of the handshake could not be sent
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

// SetTag gives the connection a number for the library's Watcher.
func (c *Conn) SetTag(tag int32) { c.tag.Store(tag) }

// Read waits for data and returns at least one byte, unless p is empty. It returns the data of one
// record. If this record is full, Read also returns the data of further records, as far as they
// have arrived and p has room.
//
// The error is io.EOF after the peer's close_notify, also for every later Read. Other errors are
// ErrTruncated, a *ProtocolError, an error that wraps a syscall.Errno, ErrNoHandshake,
// net.ErrClosed, and the error of ctx. A Read that ends with the error of ctx has lost no data.
// After a failed Write, Reads still return the data that has arrived.
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

// reader enters c and returns an op for reading. If it fails, the op is nil, and the caller must
// not call leave.
func (c *Conn) reader() (*op, error) {
	if err := c.enterReady(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	err := c.readErr
	c.mu.Unlock()
	if err != nil { // an op would have to lock c.reading, which a WaitReset may hold
		c.leave()
		return nil, err
	}
	return c.op(), nil
}

// someBytes is the most that one ReadSome returns: the data of eight records.
const someBytes = 8 * fullRecord

// someMemory has free memory for ReadSome.
var someMemory = sync.Pool{New: func() any { return new([someBytes]byte) }}

// Recycle takes back the memory of a ReadSome's result, for later calls of ReadSome. The caller
// must not use the memory any more. Calling Recycle is optional.
func Recycle(p []byte) {
	if cap(p) == someBytes {
		someMemory.Put((*[someBytes]byte)(p[:someBytes]))
	}
}

// ReadSome is a Read that provides the memory itself. It returns at most limit bytes, and at most
// 128 KiB. The limit must be positive. A ReadSome that waits has no memory for data yet. So any
// number of ReadSomes can wait. With an error it returns no data. Recycle takes the memory back.
func (c *Conn) ReadSome(ctx context.Context, limit int) ([]byte, error) {
	o, err := c.reader()
	if o == nil {
		return nil, err
	}
	defer c.leave()
	defer o.giveBack()
	return o.runSome(ctx, limit)
}

// Write sends all of p, or fails. The result n is the number of bytes of p whose records the system
// has taken completely. An empty p sends nothing. After the peer's close_notify writing is still
// possible.
//
// The error is ErrNoHandshake, ErrShut, ErrWriteBroken, net.ErrClosed, or the error of ctx. If the
// system cannot send, the error wraps a syscall.Errno. If the connection has failed, also during
// the Write, the error is the connection's (see Read).
//
// After ErrNoHandshake, and usually after the error of ctx, a later Write can succeed. But if ctx
// ends a Write while some bytes are sealed and not yet sent, later Writes return ErrWriteBroken. In
// this case the error of the Write wraps the error of ctx and ErrWriteBroken. After any other error
// all later Writes fail.
//
// Reads are possible after a failed send. If a Read meets the peer's alert, the alert becomes the
// error of later Writes.
func (c *Conn) Write(ctx context.Context, p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, c.idleWrite()
	}
	return c.outgoing(ctx, opWrite, p)
}

// idleWrite is a Write of no data.
func (c *Conn) idleWrite() error {
	err := c.enterReady()
	if err == nil {
		c.leave()
	}
	return err
}

// CloseWrite sends close_notify after the written data. Reads go on. Later Writes return ErrShut.
// The errors are those of Write. A second CloseWrite returns nil.
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

// WaitReset may be called after a Read has returned io.EOF or ErrTruncated. It waits until the
// peer's system resets the connection, or does not answer any more. It returns the error that the
// system reports. Later Writes return the same error, unless they fail already. If the connection
// has failed, WaitReset returns the connection's error. The wait also ends with net.ErrClosed, or
// with the error of ctx.
func (c *Conn) WaitReset(ctx context.Context) error {
	if err := c.enterReady(); err != nil {
		return err
	}
	defer c.leave()
	c.mu.Lock()
	err := c.readErr
	c.mu.Unlock()
	if err == nil {
		return errors.New("WaitReset was called before a Read has met the end of the data")
	}
	o := c.op()
	defer o.giveBack()
	_, err = o.run(ctx, opReset, nil)
	return err
}

// PeerSubject is the subject of the peer's certificate in OpenSSL's one-line form,
// "/C=DE/CN=example.com" (X509_NAME_oneline(3)): ASCII, other bytes as \xNN, of any length. It is
// "" before the handshake, and if the peer has shown no certificate (most clients show none). It
// stays the same after Close.
func (c *Conn) PeerSubject() string {
	if !c.established.Load() {
		return ""
	}
	return c.subject
}

// Version is the negotiated version, "TLSv1.3" or "TLSv1.2", or "" before the handshake. It stays
// the same after Close.
func (c *Conn) Version() string {
	if !c.established.Load() {
		return ""
	}
	return c.version
}

var _ io.Closer = (*Conn)(nil)
