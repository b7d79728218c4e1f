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
	if !st.sess.Free(c.handle) {
		return false, nil
	}
	// What the line was read from is overwritten by what follows it.
	st.id = append(st.id[:0], c.id...)
	c.id = st.id
	return true, st.hotWrite(c)
}

func (st *stream) hotRead(c hotCall) bool {
	if !st.raw.Load() {
		return false
	}
	if st.data == nil {
		st.data = make([]byte, hotReadSize)
	}
	n, done, err := st.sess.TryRead(c.handle, st.data[:min(c.n, len(st.data))])
	switch {
	case !done:
		return false
	case err != nil:
		st.reply(&call{id: c.id}, nil, err)
	default:
		st.head = append(append(append(st.head[:0], hotStart...), c.id...), `,"result":null,"raw":`...)
		st.head = append(strconv.AppendInt(st.head, int64(n), 10), '}')
		st.later(st.head, st.data[:n])
	}
	return true
}

// hotReadSize is the most that one Read returns the short way, in bytes.
const hotReadSize = 128 << 10

// hotWrite sends the blob piece by piece as it arrives.
func (st *stream) hotWrite(c hotCall) error {
	sent, left := 0, c.n
	for left > 0 {
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
	st.head = append(append(append(st.head[:0], hotStart...), c.id...), `,"result":`...)
	st.head = append(strconv.AppendInt(st.head, int64(c.n), 10), '}')
	st.later(st.head, nil)
	return nil
}

// finishWrite goes on with a Write that has to wait: with a part that has been read and more that
// has not.
func (st *stream) finishWrite(c hotCall, sent int, part []byte, left int) error {
	rest := make([]byte, len(part)+left)
	copy(rest, part)
	if err := st.r.Full(rest[len(part):]); err != nil {
		return err
	}
	st.launch(&call{id: bytes.Clone(c.id), method: "tls.Write", handle: int32(c.handle)}, st.sess.WriteRest(c.handle, rest, sent))
	return nil
}
