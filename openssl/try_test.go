package openssl_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"syscall"
	"testing"

	"tlsd/openssl"
)

func TestTryReadGivesWhatIsThereAndNeverWaits(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		buf := make([]byte, 100)
		if n, err := c.TryRead(buf); n != 0 || !errors.Is(err, openssl.ErrWouldBlock) {
			t.Fatalf("with nothing there: %d, %v", n, err)
		}
		if _, err := peer.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		// Loopback has no rule for when it has arrived, so a Read waits for the first byte.
		if n, err := c.Read(bounded(t), buf[:1]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := c.TryRead(buf); string(buf[:n]) != "ello" || err != nil {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
		if n, err := c.TryRead(buf); n != 0 || !errors.Is(err, openssl.ErrWouldBlock) {
			t.Fatalf("with nothing left: %d, %v", n, err)
		}
	})
}

// fill writes with TryWrite until the peer's window and all buffers are full. It returns what has been
// sent, and the rest of the blob that could not be.
func fill(t *testing.T, c *openssl.Conn) (sent, rest []byte) {
	t.Helper()
	for i := range 10_000 {
		blob := bytes.Repeat([]byte{byte(i)}, 100_000)
		n, err := c.TryWrite(blob)
		sent = append(sent, blob[:n]...)
		if errors.Is(err, openssl.ErrWouldBlock) {
			return sent, blob[n:]
		}
		if n != len(blob) || err != nil {
			t.Fatal(n, err)
		}
	}
	t.Fatal("1 GB was written to a peer that does not read")
	return nil, nil
}

func TestTryWriteOwesTheRestToTheNextWrite(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		want, rest := fill(t, c)
		want = append(append(want, rest...), "the end"...)
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write(bounded(t), rest)
			if err == nil {
				_, err = c.Write(bounded(t), []byte("the end"))
			}
			wrote <- err
		}()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(peer, got); err != nil {
			t.Fatal(err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("the peer got something else than what was written")
		}
	})
}

func TestTryWriteWhoseRestIsCancelledBreaksTheOutgoingStream(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		_, rest := fill(t, c)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := c.Write(ctx, rest); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, peer)
		if _, err := c.TryWrite([]byte("more")); !errors.Is(err, openssl.ErrWriteBroken) {
			t.Errorf("TryWrite: %v", err)
		}
		if _, err := c.Write(bounded(t), []byte("more")); !errors.Is(err, openssl.ErrWriteBroken) {
			t.Errorf("Write: %v", err)
		}
	})
}

func TestAbortSendsNoAlert(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		if err := c.Abort(); err != nil {
			t.Fatal(err)
		}
		// crypto/tls takes the end of the stream between two records for an orderly
		// one, so look at the records. The alert of TLS 1.3 looks like data, of 2 bytes, 1 for its type and 16 for the tag.
		all, err := io.ReadAll(peer.NetConn())
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		for len(all) >= 5 {
			size := int(all[3])<<8 | int(all[4])
			if all[0] == 21 || all[0] == 23 && size == 2+1+16 {
				t.Errorf("an alert was sent: record of type %d with %d bytes", all[0], size)
			}
			all = all[min(len(all), 5+size):]
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close after Abort: %v", err)
		}
	})
}
