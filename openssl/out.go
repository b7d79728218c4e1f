package openssl

import (
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// This file sends outgoing bytes. An SSL writes into memory: into the BIO pair of its current
// thread. Before the thread leaves the library, collect takes all bytes out of the pair. It sends
// the records of a Write at once. It appends all other bytes, and those that the system does not
// take, to the Conn's unsent bytes. The rules:
//
//   - Unsent bytes are sent in order, with a write(2) that cannot block, while Conn.mu is locked.
//   - A Write, a Handshake and a CloseWrite wait until their bytes are sent. If its context ends a
//     Handshake before that, the next call of Handshake sends the rest.
//   - A Read can add an alert, but does not wait. If the system does not take the alert at once,
//     the next operation sends the alert: a Read, a Write or Close.
//   - A failed send mutes the Conn: nothing more is sent. A Write or CloseWrite that is given up in
//     the middle mutes the Conn, too. The SSL does not notice, so reading goes on.
//   - A Conn without unsent bytes has no memory for them.

const (
	// piece is the most data that is sealed in one stay in the library.
	piece = 64 << 10
	// outBytes is the size of the memory for unsent bytes: a piece, and the headers and tags of
	// its records.
	outBytes = piece + 8<<10
	// bioBytes is the size of a pair. A pair has room for a piece, even in records of 64 bytes
	// (RFC 8449 section 4). A handshake message that is longer than a pair takes several stays.
	bioBytes = 2 * piece
	// A peer may cause alerts and not read them. For example, it asks for a renegotiation in
	// TLS 1.2. If more than mostOwed bytes of alerts are unsent, the connection fails.
	mostOwed = 64 << 10
)

var outMemory = sync.Pool{New: func() any { return new([outBytes]byte) }}

// An outbox has the bytes that are sealed and not yet sent. Conn.mu guards it.
type outbox struct {
	mem  []byte // nil if the outbox is empty
	sent int    // mem[:sent] is sent
	owed int    // bytes that Reads have added since the outbox was last empty
}

func (b *outbox) empty() bool { return b.mem == nil }

func (b *outbox) add(p []byte) {
	if b.mem == nil {
		b.mem = outMemory.Get().(*[outBytes]byte)[:0]
	}
	b.mem = append(b.mem, p...)
}

// drop empties the outbox, and gives its memory back to outMemory.
func (b *outbox) drop() {
	if cap(b.mem) == outBytes {
		outMemory.Put((*[outBytes]byte)(b.mem[:outBytes]))
	}
	*b = outbox{}
}

// attach makes the SSL write to the thread's pair, and returns false if that fails. The SSL keeps
// the thread's BIO until the SSL runs on another thread. Meanwhile other SSLs may have the same
// BIO, but only the SSL that runs on the thread uses it.
func (c *Conn) attach(t *thread) bool {
	switch t.bio {
	case 0: // newBIOPair has failed
		return false
	case c.wbio:
		return true
	}
	sym := &c.lib.sym
	t.arg[0] = t.bio
	if int32(call(sym.bioUpRef, t.arg[:1]...)) != 1 { // one reference for the SSL
		return false
	}
	t.arg[0], t.arg[1] = c.ssl, t.bio
	call(sym.sslSet0Wbio, t.arg[:2]...)
	c.wbio = t.bio
	return true
}

// collect takes the SSL's output out of the pair. It returns true if the output agrees with
// OpenSSL's reports. The output of a Write must consist of whole records, at least as many as
// SSL_write has sealed. The output of a Handshake or shutdown must have the size that OpenSSL
// reports. The output of a Read is not checked.
func (o *op) collect(t *thread) (sound bool) {
	c := o.c
	n, want := 0, 0
	if o.kind == opHandshake || o.kind == opShutdown {
		want = t.written(c.lib)
	}
	for !sound {
		got := t.take(c.lib)
		if len(got) == 0 {
			sound = o.kind == opRead || n == want && o.sealed == 0
			break
		}
		n += len(got)
		switch o.kind {
		case opRead:
			c.out.owed += len(got)
			o.alerted = o.alerted || c.beginsWithAlert(got)
		case opWrite:
			count, size := records(got)
			o.besides = count - o.sealed
			if sound = o.besides >= 0 && size == len(got); sound {
				c.sendRecords(o.fd, got)
				continue
			}
		default:
			sound = n == want
		}
		c.out.add(got)
	}
	if c.mute || c.shut {
		c.out.drop()
	}
	if !sound { // the pair may still have bytes, which no other connection may send
		t.freeBIOPair(c.lib)
		c.lib.newBIOPair(t)
	}
	return sound
}

// written is the number of bytes that an SSL has written to the pair and that are still in it.
func (t *thread) written(l *Library) int {
	t.arg[0], t.arg[1], t.arg[2], t.arg[3] = t.far, bioCtrlPending, 0, 0
	return int(int64(call(l.sym.bioCtrl, t.arg[:4]...)))
}

// take removes bytes from the pair, and returns them. They are valid until an SSL writes again. The
// pair is a ring buffer. Whenever it is empty, the next write begins at its start. So usually one
// take returns all bytes (BIO_nread, BIO_s_bio(3)).
func (t *thread) take(l *Library) []byte {
	t.taken = 0
	t.arg[0], t.arg[1], t.arg[2] = t.far, uintptr(unsafe.Pointer(&t.taken)), bioBytes
	n := int(int32(call(l.sym.bioNread, t.arg[:3]...)))
	if n <= 0 || n > bioBytes || t.taken == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(pointer(t.taken)), n)
}

// sendRecords sends the records of a Write. Call it only if there are no older unsent bytes. If the
// system does not take all of p, sendRecords keeps the rest.
func (c *Conn) sendRecords(fd uintptr, p []byte) {
	sent, err := send(fd, p)
	if sent == len(p) {
		return
	}
	c.out.add(p)
	c.out.sent = sent
	if err != nil {
		c.sendFailed(err)
	}
}

// beginsWithAlert says whether the output of a Read begins with an alert of TLS 1.2. (Records of
// TLS 1.3 do not show that they are alerts.) If the Read succeeds, this alert is no_renegotiation
// (RFC 5246 section 7.2.2).
func (c *Conn) beginsWithAlert(p []byte) bool {
	const alert = 21
	return p[0] == alert && c.version == "TLSv1.2"
}

// push sends the unsent bytes that the system takes at once. It returns true if no unsent bytes
// remain. A failed send drops them, so push returns true. The caller holds c.mu, and is in a
// function that RawConn calls.
func (c *Conn) push(fd uintptr) (all bool) {
	n, err := send(fd, c.out.mem[c.out.sent:])
	c.out.sent += n
	switch {
	case err != nil:
		c.sendFailed(err)
		return true
	case c.out.sent < len(c.out.mem):
		return false
	}
	if !c.out.empty() {
		c.out.drop()
	}
	return true
}

// send calls write(2) until p is sent, or the system takes no more bytes, which is no error.
func send(fd uintptr, p []byte) (sent int, err error) {
	for sent < len(p) {
		n, err := syscall.Write(int(fd), p[sent:])
		switch {
		case err == nil && n > 0:
			sent += n
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return sent, nil
		default:
			return sent, err
		}
	}
	return sent, nil
}

// sendFailed ends the outgoing direction. The caller holds c.mu.
func (c *Conn) sendFailed(err error) {
	c.sendErrno, _ = err.(syscall.Errno)
	// After CloseWrite, unsent bytes mean that close_notify is not sent completely.
	if c.writeErr == nil || c.writeErr == ErrShut && !c.out.empty() {
		c.writeErr = os.NewSyscallError("write", err)
	}
	c.silence()
}

// silence stops all sending. The caller holds c.mu.
func (c *Conn) silence() {
	c.mute = true
	c.whole, _ = records(c.out.mem[:c.out.sent])
	c.out.drop()
}

// records returns the number of whole TLS records at the beginning of p, and their size together
// (RFC 8446 section 5.1).
func records(p []byte) (count, size int) {
	const header = 5
	for len(p) >= size+header {
		next := size + header + int(p[size+3])<<8 + int(p[size+4])
		if next > len(p) {
			break
		}
		size = next
		count++
	}
	return count, size
}
