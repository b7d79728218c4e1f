package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"tlsd/rpc/wire"
)

// answering returns a client. Its other end answers each call with the same result.
func answering(b *testing.B, result string) *Client {
	ours, theirs := pair(b)
	c := New(ours)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := answerAll(theirs, result); err != io.EOF {
			b.Error("answerAll, want io.EOF: ", err)
		}
		theirs.Close()
	}()
	b.Cleanup(func() { c.Close(); <-ended })
	return c
}

// answerAll answers all calls on conn with the same result. When the client closes, it returns
// io.EOF.
func answerAll(conn net.Conn, result string) error {
	r, w := wire.NewReader(conn, 1<<20), wire.NewWriter(conn, 0, nil)
	for {
		line, err := r.Line()
		if err != nil {
			return err
		}
		// In the client's messages the id comes before the parameters. So the first match
		// is the id of the call.
		_, rest, _ := bytes.Cut(line, []byte(`"id":`))
		id, _, _ := bytes.Cut(rest, []byte(`,`))
		if err := w.Write(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":%s}`, id, result)); err != nil {
			return err
		}
	}
}

// benchCalls measures the function `call`. Each run of the function sends n bytes of payload.
func benchCalls(b *testing.B, c *Client, n int, call func(context.Context) error) {
	if n > 0 {
		b.SetBytes(int64(n))
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := call(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

const block = 64 << 10 // bytes

func BenchmarkBackend(b *testing.B) {
	c := answering(b, `"openssl"`)
	benchCalls(b, c, 0, func(ctx context.Context) error {
		_, err := c.Backend(ctx)
		return err
	})
}

func BenchmarkWrite64K(b *testing.B) {
	c, data := answering(b, fmt.Sprint(block)), make([]byte, block)
	benchCalls(b, c, block, func(ctx context.Context) error {
		_, err := c.Write(ctx, 1, data)
		return err
	})
}
