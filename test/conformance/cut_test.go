package conformance

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"tlsd/rpc/client"
)

// A close_notify ends only the direction of its sender. If a connection is cut without
// close_notify, Read fails. It must not report the end of the data.

// After a side has sent close_notify, the other side can still send data to it (RFC 8446 section
// 6.1).
func TestAfterThePeersEndDataStillGoesTheOtherWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	need := needs{client: []ability{halfClose}, server: []ability{writeOn}}
	eachSideEnds(t, need, func(t *testing.T, p pair) {
		c, s := connect(t, w, p.cl, p.sv, dialOptions{}, listenOptions{})
		greet(t, p.cl, p.sv, c, s)
		ender, other := p.order(c, s)
		if err := ender.closeWrite(); err != nil {
			t.Fatal(err)
		}
		expectEnd(t, p.other, other)

		const size = 1 << 20
		written := make(chan string, 1)
		go func() {
			_, digest, err := produce(other, 3, size)
			if err != nil {
				digest = err.Error()
			}
			written <- digest
		}()
		n, read, err := consume(ender, size)
		if wrote := <-written; n != size || err != nil || read != wrote {
			t.Fatalf("after its close_notify %s reads %d bytes, %v, digest %s; %s "+
				"writes %d, digest %s", p.ender, n, err, read, p.other, size, wrote)
		}
		expectEnd(t, p.other, other)
		closeStream(t, p.other, other)
		expectEnd(t, p.ender, ender)
		closeStream(t, p.ender, ender)
	})
}

// If a connection is cut without close_notify, Read must fail, because data may be missing.
func TestACutConnectionIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	need := needs{client: []ability{cut}, server: []ability{noticeCut}}
	eachSideEnds(t, need, func(t *testing.T, p pair) {
		c, s := connect(t, w, p.cl, p.sv, dialOptions{}, listenOptions{})
		greet(t, p.cl, p.sv, c, s)
		ender, other := p.order(c, s)
		last := marker + " the last that arrives"
		send(t, p.ender, ender, last)
		expect(t, p.other, other, last)
		ender.cut()
		for range 2 { // the second Read must fail, too
			_, err := other.Read(make([]byte, 100))
			if !isOurs(p.other) {
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s reads: %v, want %v", p.other, err,
						io.ErrUnexpectedEOF)
				}
				continue
			}
			if !isKind(err, client.KindIO) ||
				!mentions(failure(err), "without close_notify") {
				t.Fatalf("we read: %v; want kind io, with a text about the "+
					"missing close_notify", err)
			}
		}
		closeStream(t, p.other, other) // Close works after the error
	})
}

// Data that has arrived before a cut can be read. Only a Read after this data fails.
func TestDataBeforeACutIsNotLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	need := needs{client: []ability{cut, sendAtOnce}, server: []ability{noticeCut}}
	eachSideEnds(t, need, func(t *testing.T, p pair) {
		c, s := connect(t, w, p.cl, p.sv, dialOptions{}, listenOptions{})
		greet(t, p.cl, p.sv, c, s)
		ender, other := p.order(c, s)
		const size = 32 << 10 // fits into the kernel's buffers, because nobody reads yet
		_, wrote, err := produce(ender, 4, size)
		if err != nil {
			t.Fatal(err)
		}
		ender.cut()
		if n, read, err := consume(other, size); n != size || err != nil || read != wrote {
			t.Fatalf("%s reads %d bytes, %v, digest %s; %s wrote %d, digest %s",
				p.other, n, err, read, p.ender, size, wrote)
		}
		if n, err := other.Read(make([]byte, 1)); n != 0 || err == nil ||
			errors.Is(err, io.EOF) {
			t.Errorf("%s reads %d bytes, %v after the cut; want an error", p.other, n,
				err)
		}
	})
}

// After the peer has reset the connection, Read and Write fail with kind io, and Close works.
func TestAResetConnectionIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	need := needs{client: []ability{reset}, server: []ability{noticeRST}, strictWrites: true}
	eachSideEnds(t, need, func(t *testing.T, p pair) {
		c, s := connect(t, w, p.cl, p.sv, dialOptions{}, listenOptions{})
		greet(t, p.cl, p.sv, c, s)
		ender, other := p.order(c, s)
		ender.reset()
		_, err := other.Read(make([]byte, 100))
		if !isOurs(p.other) {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("%s reads: %v, want %v", p.other, err, syscall.ECONNRESET)
			}
			return
		}
		if e := failure(err); !isKind(err, client.KindIO) ||
			tells(e) && e.Data.Errno != "ECONNRESET" || !mentions(e, "reset by peer") {
			t.Fatalf("we read: %v (%+v); want kind io, errno ECONNRESET", err, e)
		}
		// The other direction is broken as well, and Close works.
		if n, err := other.Write([]byte(marker)); !isKind(err, client.KindIO) {
			t.Errorf("we write %d bytes: %v; want kind io", n, err)
		}
		closeStream(t, p.other, other)
	})
}

// A pair is a client and a server. One of them, the ender, ends the connection.
type pair struct {
	cl, sv       endpoint
	ender, other endpoint
	clientEnds   bool
}

// order returns the two streams, the ender's first.
func (p pair) order(c, s stream) (ender, other stream) {
	if p.clientEnds {
		return c, s
	}
	return s, c
}

// eachSideEnds runs body over all pairs in two cases: the client ends the connection, or the server
// does. n.client has the abilities that the ender needs in both cases, and n.server those of the
// other side.
func eachSideEnds(t *testing.T, n needs, body func(*testing.T, pair)) {
	t.Helper()
	t.Run("the client ends", func(t *testing.T) {
		t.Parallel()
		overPairs(t, n, func(t *testing.T, cl, sv endpoint) {
			body(t, pair{cl: cl, sv: sv, ender: cl, other: sv, clientEnds: true})
		})
	})
	t.Run("the server ends", func(t *testing.T) {
		t.Parallel()
		need := needs{client: n.server, server: n.client, strictWrites: n.strictWrites}
		overPairs(t, need, func(t *testing.T, cl, sv endpoint) {
			body(t, pair{cl: cl, sv: sv, ender: sv, other: cl})
		})
	})
}
