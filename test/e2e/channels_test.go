package e2e

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Go programs use data channels over the real daemon. A Close sends what was written before it.

// overDataChannels connects two Go programs over two workers of a real tlsd, with the system's
// libssl and confined workers. Each program has a net.Conn, whose bytes go over a data channel.
func overDataChannels(t *testing.T) (ours, theirs *client.Conn) {
	t.Helper()
	ca, cert := localhost(t)
	d := testd.Start(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, server := d.Dial(t), d.Dial(t)
	listening, err := server.NewServerContext(ctx, cert.CertFile, cert.KeyFile)
	must(err)
	port := testkit.Port(t)
	type accepted struct {
		conn *client.Conn
		err  error
	}
	met := make(chan accepted, 1)
	go func() {
		conn, err := server.AcceptConn(ctx, listening, "127.0.0.1", port)
		met <- accepted{conn, err}
	}()
	must(c.SetCaBundle(ctx, ca.File))
	var h client.Handle
	testkit.Until(t, "the server listens", func() bool {
		h, err = c.NewClient(ctx, "localhost", port)
		return err == nil
	})
	ours, err = c.HandshakeConn(ctx, h)
	must(err)
	a := <-met
	must(a.err)
	for _, conn := range []net.Conn{ours, a.conn} {
		conn.SetDeadline(time.Now().Add(testkit.Patience))
	}
	return ours, a.conn
}

// One program sends 4 MiB, and the other sends them back. The first program ends its sending side
// with CloseWrite, and still reads everything.
func TestGoProgramsTalkOverDataChannels(t *testing.T) {
	t.Parallel()
	ours, theirs := overDataChannels(t)
	served := make(chan error, 1)
	go func() {
		_, err := io.Copy(theirs, theirs)
		served <- errors.Join(err, theirs.Close())
	}()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	wrote := make(chan error, 1)
	go func() {
		_, err := ours.Write(data)
		wrote <- errors.Join(err, ours.Flush(t.Context()), ours.CloseWrite())
	}()
	got, err := io.ReadAll(ours)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("sent %d bytes, and want the same bytes back; got %d bytes, with the "+
			"error %v", len(data),
			len(got), err)
	}
	if err := errors.Join(<-wrote, <-served, ours.Close()); err != nil {
		t.Error(err)
	}
}

// If a program writes data and then calls Close at once, all of the data arrives, and the peer sees
// an orderly end.
func TestCloseSendsWhatIsOnTheDataChannel(t *testing.T) {
	t.Parallel()
	ours, theirs := overDataChannels(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<13)
	if _, err := ours.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(theirs); err != nil || !bytes.Equal(all, data) {
		t.Errorf("wrote %d bytes before Close, and the peer must get the same bytes; it "+
			"got %d bytes, with the error %v",
			len(data), len(all), err)
	}
}

// A deadline cuts a Write short, and the program closes the connection. The peer gets the bytes
// that were sent, and then an error. It does not get an orderly end, because data is missing.
func TestACutWriteIsNoOrderlyEnd(t *testing.T) {
	t.Parallel()
	ours, theirs := overDataChannels(t)
	data := make([]byte, 64<<20) // more than the sockets take
	n := 0
	for n == 0 { // if the deadline passes before the Write begins, the Write sends nothing
		ours.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		var err error
		if n, err = ours.Write(data); n == len(data) ||
			!errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Write: %d bytes of %d, %v; want the deadline's error", n,
				len(data), err)
		}
	}
	arrived := make(chan error, 1)
	go func() {
		all, err := io.Copy(io.Discard, theirs)
		if all != int64(n) {
			t.Errorf("the Write has sent %d bytes, but %d bytes have arrived", n, all)
		}
		arrived <- err
	}()
	if err := ours.Close(); err != nil {
		t.Error(err)
	}
	var e *client.Error
	if err := <-arrived; !errors.As(err, &e) || e.Kind != client.KindIO {
		t.Errorf("after the bytes of a Write that was cut short, the peer gets %v; "+
			"want an error of kind io", err)
	}
}
