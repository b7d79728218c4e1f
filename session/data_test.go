package session_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// The bytes of a connection without a data channel.

// TestLargeWrite: a blob of 16 MiB, the largest that a script can send, arrives whole.
func TestLargeWrite(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(r.echo())
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	write := r.start(r.Write(h, data))
	var got []byte
	for len(got) < len(data) {
		p := r.ok(r.Read(h, 1<<24)).([]byte)
		if len(p) == 0 {
			t.Fatal("the peer has ended its direction, but has not sent all of the " +
				"data back")
		}
		got = append(got, p...)
	}
	if n := write.ok(); n != len(data) {
		t.Errorf("Write returned %v, want the number of all bytes", n)
	}
	if !bytes.Equal(got, data) {
		t.Error("the data that came back differs from the data sent")
	}
}

func TestReadIsBoundedByItsMaximum(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(r.echo())
	r.ok(r.Write(h, []byte("abcdef")))
	if got := r.ok(r.Read(h, 1)).([]byte); string(got) != "a" {
		t.Errorf("a Read of at most 1 byte returned %q, want \"a\"", got)
	}
}

func TestEndOfData(t *testing.T) {
	t.Parallel()
	t.Run("close_notify is an empty Read each time, and Write goes on", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		got := make(chan string, 1)
		h := r.client(testkit.Serve(t, func(nc net.Conn) {
			c := r.tlsServer(nc)
			c.Handshake()
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			got <- string(b)
		}))
		for range 3 {
			if p := r.ok(r.Read(h, 10)).([]byte); p == nil || len(p) != 0 {
				t.Errorf("Read returned %v, want an empty blob", p)
			}
		}
		r.ok(r.Write(h, []byte("still here")))
		r.ok(r.Close(h))
		if s := <-got; s != "still here" {
			t.Errorf("the peer got %q, want \"still here\"", s)
		}
	})
	t.Run("without close_notify is an error", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.client(testkit.Serve(t, func(nc net.Conn) {
			c := r.tlsServer(nc)
			c.Write([]byte("half a mess"))
			// testkit.Serve closes nc, so c sends no close_notify.
		}))
		r.ok(r.Read(h, 100))
		r.fails(r.Read(h, 100), kind.IO)
		r.ok(r.Close(h))
	})
}

func TestWritesAndReadsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(r.echo())
	const n = 50
	var writes, reads []*session.Call
	for i := range n {
		writes = append(writes, r.Write(h, fmt.Appendf(nil, "%03d\n", i)))
		reads = append(reads, r.Read(h, 4))
	}
	// The calls are started in any order. They run in the order in which they were made.
	got := make([]*running, n)
	for _, i := range rand.Perm(n) {
		r.start(writes[i])
		got[i] = r.start(reads[i])
	}
	var all []byte
	for _, g := range got {
		all = append(all, g.ok().([]byte)...)
	}
	for len(all) < 4*n {
		all = append(all, r.ok(r.Read(h, 4)).([]byte)...)
	}
	for i := range n {
		if want := fmt.Sprintf("%03d\n", i); string(all[4*i:4*i+4]) != want {
			t.Fatalf("message %d is %q, want %q", i, all[4*i:4*i+4], want)
		}
	}
}
