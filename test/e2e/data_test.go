package e2e

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/rpc/client"
)

// Two Go programs talk to each other over two workers of a real tlsd, which confine themselves, with the
// system's libssl: each has a net.Conn, whose bytes go over a data channel. Half-close works both ways.
func TestGoProgramsTalkOverDataChannels(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	d := testd.Start(t)
	ctx := t.Context()
	ours, theirs := d.Dial(t), d.Dial(t)
	listening, err := theirs.NewServerContext(ctx, cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	port := testd.Port(t)
	served := make(chan error, 1)
	go func() {
		conn, err := theirs.AcceptConn(ctx, listening, "127.0.0.1", port)
		if err == nil {
			_, err = io.Copy(conn, conn)
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	if err := ours.SetCaBundle(ctx, ca.File); err != nil {
		t.Fatal(err)
	}
	var h client.Handle
	testd.Eventually(t, bound, "the server listens", func() bool {
		h, err = ours.NewClient(ctx, "localhost", port)
		return err == nil
	})
	conn, err := ours.HandshakeConn(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(bound))
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		wrote <- errors.Join(err, conn.Flush(ctx), conn.CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes of %d came back, or other ones: %v", len(got), len(data), err)
	}
	if err := errors.Join(<-wrote, <-served, conn.Close()); err != nil {
		t.Error(err)
	}
}

// What was written before Close arrives, though nobody waited for it, and the peer sees its orderly end.
func TestCloseSendsWhatIsOnTheDataChannel(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	got := make(chan []byte, 1)
	l := listen(t, "127.0.0.1:0", cert)
	serve(t, l, func(c net.Conn) {
		all, err := io.ReadAll(c) // an end without close_notify is an error
		if err != nil {
			t.Error(err)
		}
		got <- all
	})
	c := testd.Start(t).Dial(t)
	if err := c.SetCaBundle(t.Context(), ca.File); err != nil {
		t.Fatal(err)
	}
	h, err := c.NewClient(t.Context(), "localhost", l.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.HandshakeConn(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if all := <-got; !bytes.Equal(all, data) {
		t.Errorf("%d bytes of %d have arrived, or other ones", len(all), len(data))
	}
}
