package session_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
)

// A Wait reads ahead, to find out whether a Read would wait. The bytes belong to the next Read.

// TestAReadBehindAWaitLosesNothing: Waits and Reads take turns. The Reads, of many sizes, get all
// data.
func TestAReadBehindAWaitLosesNothing(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	data := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), 10000)
	port := testkit.Serve(t, func(nc net.Conn) {
		c := r.tlsServer(nc)
		c.Write(data)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	h := r.watch(r.client(port))
	var got []byte
	for size := 1; ; size = size%5000 + 7 {
		r.waitFor(h)
		part := r.ok(r.Read(h, size)).([]byte)
		if len(part) > size {
			t.Fatalf("a Read of at most %d bytes gives %d bytes", size, len(part))
		}
		if len(part) == 0 {
			break
		}
		got = append(got, part...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("the Reads have got %d bytes, which differ from the %d bytes that were "+
			"sent", len(got), len(data))
	}
}

// TestAWaitBesideAReadReadsNothing: while a Read waits, a Wait does not read ahead. The Read gets
// the data.
func TestAWaitBesideAReadReadsNothing(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Read)
	r := newRig(t, g.install)
	port, says := r.puppet()
	h := r.watch(r.client(port))
	read := r.start(r.Read(h, 10))
	await(t, g.first(), "the Read")
	says <- "x"
	r.noneReady()
	if n := len(g.arrived); n != 0 {
		t.Errorf("a Wait has read data while a Read waits, want only the Read to read")
	}
	g.release <- nil
	if got := string(read.ok().([]byte)); got != "x" {
		t.Errorf("the Read returned %q, want \"x\"", got)
	}
}

// TestWhatIsKnownIsReadyAtOnce: after a Read has returned the end or an error, a Wait of 0 ms
// returns the handle. It need not read ahead.
func TestWhatIsKnownIsReadyAtOnce(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"", "cut"} {
		r := newRig(t)
		port, says := r.puppet()
		h := r.watch(r.client(port))
		says <- how
		r.waitFor(h)
		for range 20 {
			if read := r.Read(h, 1); how == "cut" {
				r.fails(read, kind.IO)
			} else if data := r.ok(read).([]byte); len(data) > 0 {
				t.Errorf("read %q, want the end", data)
			}
			if got := r.ok(r.Wait(0)); got != h {
				t.Fatalf("Wait gives %v, want %d", got, h)
			}
		}
		r.End()
	}
}

// TestACloseOfAWatchedConnectionIsNotHeldUp: the read-ahead of a Wait does not delay the Close.
func TestACloseOfAWatchedConnectionIsNotHeldUp(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		r := newRig(t)
		port, says := r.puppet()
		h := r.watch(r.client(port))
		r.noneReady()
		if !silent {
			says <- "x"
			r.waitFor(h)
		}
		w := r.start(r.Wait(-1))
		if silent {
			r.ok(r.Close(h))
			w.Cancel()
			w.fails(kind.Cancelled)
		} else {
			w.ok()
			r.ok(r.Close(h))
		}
		r.End()
	}
}
