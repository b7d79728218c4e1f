package openssl

import (
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Outgoing bytes. An SSL writes into memory: into the BIO pair of its current thread. Before the
// thread leaves the library, everything is taken out of the pair. The records of a Write are sent
// from there. All other bytes are appended to the Conn's unsent bytes, and so is what the system
// does not take. The rules:
//
//   - Unsent bytes are sent in order, by write(2) that cannot block, under Conn.mu. The next
//     operation sends them: the Write that has made them, a Read, another Write, Close.
//   - A Write, a Handshake and a CloseWrite wait until their bytes have left. A Read does not. Its
//     bytes (an answer to KeyUpdate, an alert) are sent at once, or by the next operation. RFC 8446
//     wants such an answer before the next data, so this is soon enough.
//   - A send that fails, or is given up in the middle, mutes the Conn: nothing more is sent. The
//     SSL does not know, and goes on reading.
//   - A Conn without unsent bytes has no memory for them.

const (
	// piece is the most data that is sealed in one stay in the library.
	piece = 64 << 10
	// outBytes is room for a piece in records.
	outBytes = piece + 8<<10
	// bioBytes is the size of a pair. A Write has room for its piece there, also in records of
	// 64 bytes (RFC 8449 section 4). A longer handshake message takes several stays.
	bioBytes = 2 * piece
	// mostOwed limits the answers to a peer that asks and does not read.
	mostOwed = 64 << 10
)

var outMemory = sync.Pool{New: func() any { return new([outBytes]byte) }}

// An outbox has the bytes that are sealed and not yet sent. Conn.mu guards it.
type outbox struct {
	mem  []byte // nil if there are none
	sent int    // mem[:sent] has left
	owed int    // bytes that Reads have added since the outbox was last empty
}

func (b *outbox) empty() bool { return b.mem == nil }

// add appends p.
func (b *outbox) add(p []byte) {
	if b.mem == nil {
		b.mem = outMemory.Get().(*[outBytes]byte)[:0]
	}
	b.mem = append(b.mem, p...)
}

// drop drops all bytes.
func (b *outbox) drop() {
	if cap(b.mem) == outBytes {
		outMemory.Put((*[outBytes]byte)(b.mem[:outBytes]))
	}
	*b = outbox{}
}

// attach makes the SSL write to the thread's pair. The SSL keeps this BIO until it runs on another
// thread. Meanwhile other SSLs may have the same BIO, but only the one that runs uses it.
func (c *Conn) attach(t *thread) bool {
	switch t.bio {
	case 0: // newBIOPair has failed
		return false
	case c.wbio:
		return true
	}
	sym := &c.lib.sym
	t.arg[0] = t.bio
	if int32(call(sym.bioUpRef, t.arg[:1]...)) != 1 { // the SSL frees its reference
		return false
	}
	t.arg[0], t.arg[1] = c.ssl, t.bio
	call(sym.sslSet0Wbio, t.arg[:2]...)
	c.wbio = t.bio
	return true
}

// collect takes the SSL's output out of the pair. It says whether the library's statements about it
// fit together. For a Write the records must be whole, and at least as many as the Write has
// sealed. For a Handshake or shutdown the size must be the one that the library reports.
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
	if !sound { // Bytes of one connection must not come into another's stream.
		t.freeBIOPair(c.lib)
		c.lib.newBIOPair(t)
	}
	return sound
}

// written is the number of bytes that an SSL has written.
func (t *thread) written(l *Library) int {
	t.arg[0], t.arg[1], t.arg[2], t.arg[3] = t.far, bioCtrlPending, 0, 0
	return int(int64(call(l.sym.bioCtrl, t.arg[:4]...)))
}

// take returns bytes that an SSL has written. They are valid until an SSL writes again. A pair that
// becomes empty begins anew at its start, so one take returns all (BIO_nread, BIO_s_bio(3)).
func (t *thread) take(l *Library) []byte {
	t.taken = 0
	t.arg[0], t.arg[1], t.arg[2] = t.far, uintptr(unsafe.Pointer(&t.taken)), bioBytes
	n := int(int32(call(l.sym.bioNread, t.arg[:3]...)))
	if n <= 0 || n > bioBytes || t.taken == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(pointer(t.taken)), n)
}

// sendRecords sends the records of a Write. There are no unsent bytes before them. If the system
// does not take all, sendRecords keeps them.
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

// beginsWithAlert says whether the output of a Read begins with an alert. In TLS 1.2 a record shows
// its type. The only alert of a Read that does not fail is no_renegotiation (RFC 5246 section
// 7.2.2).
func (c *Conn) beginsWithAlert(p []byte) bool {
	const alert = 21
	return p[0] == alert && c.version == "TLSv1.2"
}

// push sends what the system takes at once, and says whether nothing is left. The caller holds
// c.mu, and is in a function that RawConn calls.
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

// send is write(2) until the system takes no more, which is no error.
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
	// with ErrShut and unsent bytes, close_notify has not left
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

// records is the number of whole TLS records at the beginning of p, and their size (RFC 8446
// section 5.1).
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
