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

// answering is a client whose other end answers each call with the same line, which gets the call's
// id, and raw bytes.
func answering(b *testing.B, result string, raw []byte) *Client {
	ours, theirs := pair(b)
	c := New(ours)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := answerAll(theirs, result, raw); err != io.EOF {
			b.Error(err)
		}
		theirs.Close()
	}()
	b.Cleanup(func() { c.Close(); <-ended })
	return c
}

func answerAll(conn net.Conn, result string, raw []byte) error {
	r, w := wire.NewReader(conn, 1<<20), wire.NewWriter(conn, 0, nil)
	for {
		line, err := r.Line()
		if err != nil {
			return err
		}
		// The client has made the line with encoding/json, from a struct.
		_, rest, _ := bytes.Cut(line, []byte(`"id":`))
		id, _, _ := bytes.Cut(rest, []byte(`,`))
		msg := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":%s`, id, result)
		if raw != nil {
			msg = fmt.Appendf(msg, `,"raw":%d`, len(raw))
		}
		announced := 0
		if _, n, found := bytes.Cut(line, []byte(`"raw":`)); found {
			fmt.Sscan(string(n), &announced)
		}
		if err := r.Skip(announced); err != nil {
			return err
		}
		if err := w.Write(append(msg, '}'), raw); err != nil {
			return err
		}
	}
}

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
	c := answering(b, `"openssl"`, nil)
	benchCalls(b, c, 0, func(ctx context.Context) error { _, err := c.Backend(ctx); return err })
}

func BenchmarkWrite64K(b *testing.B) {
	c, data := answering(b, fmt.Sprint(block), nil), make([]byte, block)
	benchCalls(b, c, block, func(ctx context.Context) error { _, err := c.Write(ctx, 1, data); return err })
}

func BenchmarkRead64K(b *testing.B) {
	c := answering(b, "null", make([]byte, block))
	benchCalls(b, c, block, func(ctx context.Context) error { _, err := c.Read(ctx, 1, block); return err })
}
