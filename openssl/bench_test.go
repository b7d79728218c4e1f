package openssl_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"tlsd/internal/testalloc"
	"tlsd/openssl"
)

// The benchmarks compare a Conn ("openssl") with crypto/tls ("crypto-tls"). The peer of both is
// crypto/tls, over loopback. Only the difference counts: the numbers themselves depend on the
// machine.

var sizes = []int{64, 16 << 10, 1 << 20}

func name(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%dMiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dB", n)
}

// benchPair returns a stream of the implementation impl, "openssl" or "crypto-tls", and its peer,
// which is always crypto/tls.
func benchPair(b *testing.B, impl string) (io.ReadWriter, *tls.Conn) {
	b.Helper()
	if impl == "openssl" {
		c, peer := setups[0].connect(b)
		return stream{context.Background(), c}, peer
	}
	id := newIdentity(b)
	x, y := tcpPair(b)
	peer := tls.Server(x, &tls.Config{Certificates: []tls.Certificate{id.cert.TLS()}})
	c := tls.Client(y, &tls.Config{RootCAs: id.ca.Pool(), ServerName: "localhost"})
	errc := make(chan error, 1)
	go func() { errc <- peer.Handshake() }()
	if err := errors.Join(c.Handshake(), <-errc); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { x.Close(); y.Close() })
	return c, peer
}

func forImpls(b *testing.B, f func(b *testing.B, impl string, n int)) {
	for _, n := range sizes {
		for _, impl := range []string{"openssl", "crypto-tls"} {
			b.Run(name(n)+"/"+impl, func(b *testing.B) { f(b, impl, n) })
		}
	}
}

// cpuPerOp reports the CPU time of both ends together. Other work on the machine changes the CPU
// time less than the elapsed time.
func cpuPerOp(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkWrite(b *testing.B) {
	forImpls(b, func(b *testing.B, impl string, n int) {
		w, peer := benchPair(b, impl)
		go io.Copy(io.Discard, peer)
		p := make([]byte, n)
		b.SetBytes(int64(n))
		b.ReportAllocs()
		defer cpuPerOp(b)()
		for b.Loop() {
			if _, err := w.Write(p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	forImpls(b, func(b *testing.B, impl string, n int) {
		r, peer := benchPair(b, impl)
		go func() {
			p := make([]byte, n)
			for {
				if _, err := peer.Write(p); err != nil {
					return
				}
			}
		}()
		p := make([]byte, n)
		b.SetBytes(int64(n))
		b.ReportAllocs()
		defer cpuPerOp(b)()
		for b.Loop() {
			if _, err := io.ReadFull(r, p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEcho waits for each answer, with a context that can be cancelled.
func BenchmarkEcho(b *testing.B) {
	forImpls(b, func(b *testing.B, impl string, n int) {
		c, peer := benchPair(b, impl)
		if s, ok := c.(stream); ok {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			s.ctx = ctx
			c = s
		}
		go io.Copy(struct{ io.Writer }{peer}, struct{ io.Reader }{peer})
		p, back := make([]byte, n), make([]byte, n)
		errc := make(chan error, 1)
		b.SetBytes(2 * int64(n))
		b.ReportAllocs()
		defer cpuPerOp(b)()
		for b.Loop() {
			go func() { _, err := c.Write(p); errc <- err }()
			if _, err := io.ReadFull(c, back); err != nil {
				b.Fatal(err)
			}
			if err := <-errc; err != nil {
				b.Fatal(err)
			}
		}
	})
}

const block = 64 << 10 // bytes

// writingPair returns a Conn whose peer reads and drops all data.
func writingPair(tb testing.TB) *openssl.Conn {
	c, peer := setups[0].connect(tb)
	go io.Copy(io.Discard, peer.NetConn())
	return c
}

// writeAll is a Write that must succeed.
func writeAll(tb testing.TB, c *openssl.Conn, p []byte) {
	if _, err := c.Write(context.Background(), p); err != nil {
		tb.Fatal(err)
	}
}

// readingPair returns a Conn whose peer, another Conn, sends data all the time.
func readingPair(tb testing.TB) *openssl.Conn {
	l, id := load(tb), newIdentity(tb)
	ours, peers := tcpPair(tb)
	c, err := clientContext(tb, l, id.ca.PEM()).NewClient(ours, "localhost")
	if err != nil {
		tb.Fatal(err)
	}
	peer, err := serverContext(tb, l, id.cert).NewServer(peers)
	if err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := peer.Handshake(context.Background())
		for p := make([]byte, block); err == nil; {
			_, err = peer.Write(context.Background(), p)
		}
	}()
	tb.Cleanup(func() { c.Close(); peer.Close(); <-ended })
	if err := c.Handshake(bounded(tb)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// readAll fills p.
func readAll(tb testing.TB, c *openssl.Conn, p []byte) {
	for len(p) > 0 {
		n, err := c.Read(context.Background(), p)
		if err != nil {
			tb.Fatal(err)
		}
		p = p[n:]
	}
}

// readSome reads len(p) bytes with ReadSome.
func readSome(tb testing.TB, c *openssl.Conn, p []byte) {
	for n := 0; n < len(p); {
		got, err := c.ReadSome(context.Background(), len(p)-n)
		if err != nil {
			tb.Fatal(err)
		}
		n += len(got)
		openssl.Recycle(got)
	}
}

func benchNow(b *testing.B, c *openssl.Conn, do func(testing.TB, *openssl.Conn, []byte)) {
	p := make([]byte, block)
	b.SetBytes(block)
	b.ReportAllocs()
	defer cpuPerOp(b)()
	for b.Loop() {
		do(b, c, p)
	}
}

func BenchmarkWrite64K(b *testing.B)    { benchNow(b, writingPair(b), writeAll) }
func BenchmarkRead64K(b *testing.B)     { benchNow(b, readingPair(b), readAll) }
func BenchmarkReadSome64K(b *testing.B) { benchNow(b, readingPair(b), readSome) }

func TestReadsAndWritesAllocateNothingThatGrowsWithTheirData(t *testing.T) {
	p := make([]byte, block)
	most := 4 << 10 // bytes; an operation that has to wait allocates a little
	if raceEnabled {
		most = 2 * block // the race detector makes sync.Pool drop objects
	}
	c := writingPair(t)
	if got := testalloc.PerCall(200, func() { writeAll(t, c, p) }); got > most {
		t.Errorf("a Write of %d bytes allocates %d bytes, want at most %d", block, got,
			most)
	}
	c = readingPair(t)
	if got := testalloc.PerCall(200, func() { readAll(t, c, p) }); got > most {
		t.Errorf("to read %d bytes allocates %d bytes, want at most %d", block, got, most)
	}
	if got := testalloc.PerCall(200, func() { readSome(t, c, p) }); got > 4*most {
		t.Errorf("ReadSome and Recycle allocate %d bytes, want at most %d", got, 4*most)
	}
}

func BenchmarkHandshake(b *testing.B) {
	l, id := load(b), newIdentity(b)
	cctx := clientContext(b, l, id.ca.PEM())
	b.ReportAllocs()
	defer cpuPerOp(b)()
	for b.Loop() {
		ours, peers := tcpPair(b)
		go func() {
			s := tls.Server(peers,
				&tls.Config{Certificates: []tls.Certificate{id.cert.TLS()}})
			_ = s.Handshake()
			_, _ = io.Copy(io.Discard, s)
			peers.Close()
		}()
		c, err := cctx.NewClient(ours, "localhost")
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Handshake(context.Background()); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
