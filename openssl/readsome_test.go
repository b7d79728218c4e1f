package openssl_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"testing"

	"tlsd/openssl"
)

func TestReadSomeGivesEverythingInItsOrderAndThenTheEnd(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		data := make([]byte, 300_000)
		for i := range data {
			data[i] = byte(i ^ i>>8 ^ i>>16)
		}
		go func() {
			for _, n := range []int{1, 2, 16384, 100_000} { // as records of many sizes
				peer.Write(data[:n])
			}
			peer.Write(data)
			peer.CloseWrite()
		}()
		want := bytes.Join([][]byte{data[:1], data[:2], data[:16384], data[:100_000], data},
			nil)
		var got []byte
		for i := 0; ; i++ {
			limit := []int{1, 7, 40_000, 1 << 24}[i%4]
			p, err := c.ReadSome(bounded(t), limit)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || len(p) == 0 || len(p) > limit {
				t.Fatalf("ReadSome gives %d bytes, %v; want 1 to %d", len(p), err,
					limit)
			}
			got = append(got, p...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("the %d bytes that were read differ from the %d that were sent",
				len(got), len(want))
		}
		if _, err := c.ReadSome(bounded(t), 10); !errors.Is(err, io.EOF) {
			t.Errorf("ReadSome after the end: %v, want EOF", err)
		}
	})
}

func TestReadSomeThatIsCancelledHasLostNothing(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := c.ReadSome(ctx, 10)
			ended <- err
		}()
		untilReads(t, c)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal("the ReadSome that was cancelled, want context.Canceled: ", err)
		}
		if _, err := peer.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
		if p, err := c.ReadSome(bounded(t), 10); string(p) != "data" || err != nil {
			t.Errorf("the next ReadSome: %q, %v, want data", p, err)
		}
	})
}
