package wire_test

import (
	"net"
	"strings"
	"testing"

	"tlsd/internal/testalloc"
	"tlsd/rpc/wire"
)

const (
	line = `{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":65536}`
	blob = 64 << 10 // bytes
)

// endless gives the same bytes again and again.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

// nowhere takes everything.
type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// takeMessage reads a line and its raw bytes as they arrive.
func takeMessage(tb testing.TB, r *wire.Reader) {
	if _, err := r.Line(); err != nil {
		tb.Fatal(err)
	}
	for left := blob; left > 0; {
		p, err := r.Piece(left)
		if err != nil {
			tb.Fatal(err)
		}
		left -= len(p)
	}
}

func giveMessage(tb testing.TB, w *wire.Writer, raw []byte) {
	if err := w.Write([]byte(line), raw); err != nil {
		tb.Fatal(err)
	}
}

func newReader() *wire.Reader {
	return wire.NewReader(&endless{text: line + "\n" + strings.Repeat("x", blob)}, 1<<20)
}

func BenchmarkReadLine(b *testing.B) {
	r := wire.NewReader(&endless{text: line + "\n"}, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Line(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadRaw64K(b *testing.B) {
	r := newReader()
	b.SetBytes(blob)
	b.ReportAllocs()
	for b.Loop() {
		takeMessage(b, r)
	}
}

func BenchmarkWriteLine(b *testing.B) {
	w := wire.NewWriter(nowhere{}, 0, nil)
	b.ReportAllocs()
	for b.Loop() {
		giveMessage(b, w, nil)
	}
}

func BenchmarkWriteRaw64K(b *testing.B) {
	w, raw := wire.NewWriter(nowhere{}, 0, nil), make([]byte, blob)
	b.SetBytes(blob)
	b.ReportAllocs()
	for b.Loop() {
		giveMessage(b, w, raw)
	}
}

func TestRawBytesAreReadAndWrittenWithoutCopies(t *testing.T) {
	const most = 256 // bytes
	r := newReader()
	if got := testalloc.PerCall(200, func() { takeMessage(t, r) }); got > most {
		t.Errorf("to read %d raw bytes allocates %d, more than %d", blob, got, most)
	}
	w, raw := wire.NewWriter(nowhere{}, 0, nil), make([]byte, blob)
	if got := testalloc.PerCall(200, func() { giveMessage(t, w, raw) }); got > most {
		t.Errorf("to write %d raw bytes allocates %d, more than %d", blob, got, most)
	}
}
