package rpc

import (
	"bytes"
	"strconv"

	"tlsd/rpc/wire"
	"tlsd/session"
)

// The short way of tls.Read and tls.Write, which carry the data: recognised
// by their exact form, carried out on the reading goroutine if they need not
// wait, and answered from there without JSON libraries. All that is written differently, and all
// that goes wrong, takes the long way, which does the same.
//
// Small Writes that have arrived one behind the other are sent as one, so that they share a TLS
// record and a system call; see hotSmallWrites.

// hotCall is a request of one of the forms
//
//	{"jsonrpc":"2.0","id":ID,"method":"tls.Write","params":[HANDLE],"raw":N}
//	{"jsonrpc":"2.0","id":ID,"method":"tls.Read","params":[HANDLE,N]}
//
// with numbers of at most nine digits.
type hotCall struct {
	write  bool
	id     []byte // part of the line
	handle session.Handle
	n      int // bytes that are announced, or wanted
}

var (
	hotStart = []byte(`{"jsonrpc":"2.0","id":`)
	hotWrite = []byte(`,"method":"tls.Write","params":[`)
	hotRead  = []byte(`,"method":"tls.Read","params":[`)
	hotRaw   = []byte(`],"raw":`)
	hotEnd   = []byte(`}`)
)

func parseHot(line []byte) (c hotCall, ok bool) {
	rest, ok := bytes.CutPrefix(line, hotStart)
	if !ok {
		return c, false
	}
	_, after, ok := hotNumber(rest)
	if !ok {
		return c, false
	}
	c.id = rest[:len(rest)-len(after)]
	between, end := hotRaw, hotEnd
	if rest, c.write = bytes.CutPrefix(after, hotWrite); !c.write {
		if rest, ok = bytes.CutPrefix(after, hotRead); !ok {
			return c, false
		}
		between, end = []byte(`,`), []byte(`]}`)
	}
	handle, rest, ok := hotNumber(rest)
	if !ok || handle == 0 {
		return c, false
	}
	c.handle = session.Handle(handle)
	if rest, ok = bytes.CutPrefix(rest, between); !ok {
		return c, false
	}
	if c.n, rest, ok = hotNumber(rest); !ok || c.n > wire.MaxBlob || !c.write && c.n == 0 {
		return c, false
	}
	return c, bytes.Equal(rest, end)
}

// hotNumber reads a number of JSON without sign, of at most nine digits.
func hotNumber(b []byte) (n int, rest []byte, ok bool) {
	i := 0
	for i < len(b) && i < 9 && b[i] >= '0' && b[i] <= '9' {
		n = n*10 + int(b[i]-'0')
		i++
	}
	return n, b[i:], i > 0 && (i == 1 || b[0] != '0')
}

// hot carries out a call the short way, or says that it did nothing. An error means
// that no more can be read.
func (st *stream) hot(c hotCall) (done bool, err error) {
	if !c.write {
		return st.hotRead(c), nil
	}
	if !st.sess.Free(c.handle) || !st.fits(c.n) {
		return false, nil
	}
	// What the line was read from is overwritten by what follows it.
	st.ids = st.ids[:0]
	c.id = st.keepID(c.id)
	return true, st.hotWrite(c)
}

// keepID copies an id, for as long as a Write is carried out.
func (st *stream) keepID(id []byte) []byte {
	st.ids = append(st.ids, id...)
	return st.ids[len(st.ids)-len(id):]
}

// room is where the short way keeps data, hotReadSize bytes.
func (st *stream) room() []byte {
	if st.data == nil {
		st.data = make([]byte, hotReadSize)
	}
	return st.data
}

func (st *stream) hotRead(c hotCall) bool {
	if !st.raw.Load() {
		return false
	}
	data := st.room()
	n, done, err := st.sess.TryRead(c.handle, data[:min(c.n, len(data))])
	switch {
	case !done && st.sess.Busy() >= st.sess.Limits.Calls:
		return false // refused the long way
	case !done:
		st.launch(&call{id: bytes.Clone(c.id), method: "tls.Read", handle: int32(c.handle)}, st.sess.Read(c.handle, c.n))
	case err != nil:
		st.reply(&call{id: c.id}, nil, err)
	default:
		st.head = append(append(append(st.head[:0], hotStart...), c.id...), `,"result":null,"raw":`...)
		st.head = append(strconv.AppendInt(st.head, int64(n), 10), '}')
		st.later(st.head, data[:n])
	}
	return true
}

// hotReadSize is the most that one Read returns the short way, in bytes.
const hotReadSize = 128 << 10

// hotWrite sends the blob piece by piece as it arrives.
func (st *stream) hotWrite(c hotCall) error {
	if c.n <= smallWrite {
		return st.hotSmallWrites(c)
	}
	sent, left := 0, c.n
	for left > 0 {
		if sent >= mostWritten {
			return st.finishWrite(c, sent, nil, left)
		}
		piece, err := st.r.Piece(left)
		if err != nil {
			return err
		}
		n, done, err := st.sess.TryWrite(c.handle, piece)
		left -= len(piece)
		sent += n
		switch {
		case err != nil:
			st.reply(&call{id: c.id}, nil, err)
			return st.r.Skip(left)
		case !done:
			return st.finishWrite(c, sent, piece[n:], left)
		}
	}
	st.wrote(c.id, c.n)
	return nil
}

// mostWritten limits what one Write sends the short way, in bytes; it may exceed that by less than a piece.
// Everything that was sent behind the Write waits meanwhile. A TryWrite waits a few milliseconds for the peer at
// most, so a limit of bytes limits the time, too, and does not count time in which this process did not run.
const mostWritten = 512 << 10

// wrote answers a Write that was carried out the short way.
func (st *stream) wrote(id []byte, n int) {
	st.head = append(append(append(st.head[:0], hotStart...), id...), `,"result":`...)
	st.head = append(strconv.AppendInt(st.head, int64(n), 10), '}')
	st.written(st.w.Acknowledge(st.head))
}

const (
	smallWrite  = 1 << 14        // what one TLS record carries at most (RFC 8446 section 5.1)
	joinedBytes = 4 * smallWrite // of small Writes that are sent as one, at most
)

// hotSmallWrites carries out a Write of no more than a record, together with as small ones for the same handle
// that have arrived whole behind it. It waits for none of these.
func (st *stream) hotSmallWrites(c hotCall) error {
	data := st.room()[:c.n]
	if err := st.r.Full(data); err != nil {
		return err
	}
	all := append(st.joined[:0], part{c.id, c.n})
	for {
		next, ok := st.following(c.handle, min(smallWrite, joinedBytes-len(data)))
		if !ok || len(all) == mostJoined || !st.fits(len(data)+next.n) {
			break
		}
		data = append(data, next.data...)
		all = append(all, part{st.keepID(next.id), next.n})
		st.r.Skip(next.size)
	}
	st.joined = all
	n, done, err := 0, true, error(nil)
	if len(data) > 0 {
		n, done, err = st.sess.TryWrite(c.handle, data)
	}
	switch {
	case err != nil:
		for _, w := range all {
			st.reply(&call{id: w.id}, nil, err)
		}
	case done:
		for _, w := range all {
			st.wrote(w.id, w.n)
		}
	default:
		// The engine may hold a record with all of it, so all of it is one call from now on.
		rest := &call{id: bytes.Clone(c.id), method: "tls.Write", handle: int32(c.handle)}
		for _, w := range all {
			rest.joined = append(rest.joined, part{bytes.Clone(w.id), w.n})
		}
		st.launchKeeping(rest, c.handle, bytes.Clone(data[n:]), n)
	}
	return nil
}

// mostJoined is how many Writes are carried out as one at most; there may be endless empty ones.
const mostJoined = 256

// A part is one of several Writes that are carried out as one.
type part struct {
	id []byte
	n  int // its bytes
}

// A followingWrite is a Write that has been read ahead, and not taken yet.
type followingWrite struct {
	hotCall
	data []byte
	size int // of the whole message
}

// following looks whether the next message is a Write for the handle, of at most so many bytes, which
// has arrived whole.
func (st *stream) following(h session.Handle, most int) (w followingWrite, ok bool) {
	ahead := st.r.Ahead()
	n := copy(st.next[:], ahead) // before it is looked at: the caller may be able to change what is ahead
	end := bytes.IndexByte(st.next[:n], '\n')
	if end < 0 {
		return w, false
	}
	w.hotCall, ok = parseHot(st.next[:end])
	w.size = end + 1 + w.n
	if !ok || !w.write || w.handle != h || w.n > most || w.size > len(ahead) {
		return w, false
	}
	w.data = ahead[end+1 : w.size]
	return w, true
}

// longestHot is more than the length of any line that parseHot takes, in bytes.
const longestHot = 128

// finishWrite goes on with a Write that has to wait: with a part that has been read and more that
// has not.
func (st *stream) finishWrite(c hotCall, sent int, part []byte, left int) error {
	rest := make([]byte, len(part)+left)
	copy(rest, part)
	if err := st.r.Full(rest[len(part):]); err != nil {
		return err
	}
	st.launchKeeping(&call{id: bytes.Clone(c.id), method: "tls.Write", handle: int32(c.handle)}, c.handle, rest, sent)
	return nil
}

// launchKeeping launches a Write for what has not been sent, of which it has been made sure that it fits.
func (st *stream) launchKeeping(c *call, h session.Handle, rest []byte, sent int) {
	if err := st.hold(c, len(rest)); err != nil {
		panic(err)
	}
	st.launch(c, st.sess.WriteRest(h, rest, sent))
}
