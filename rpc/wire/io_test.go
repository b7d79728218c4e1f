package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"tlsd/rpc/wire"
)

// lines reads all lines, until an error.
func lines(r *wire.Reader) (got []string, err error) {
	for {
		line, err := r.Line()
		if err != nil {
			return got, err
		}
		got = append(got, string(line))
	}
}

func TestReaderGivesLinesWithoutTheirEnds(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 100_000) // more than the reader's own buffer
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"nothing":              {"", nil},
		"one":                  {"a\n", []string{"a"}},
		"two":                  {"a\nb\n", []string{"a", "b"}},
		"last without end":     {"a\nb", []string{"a", "b"}},
		"CRLF":                 {"a\r\nb\r\n", []string{"a", "b"}},
		"last with CR only":    {"a\r", []string{"a"}},
		"CR inside stays":      {"a\rb\n", []string{"a\rb"}},
		"blank":                {"\n\n  \n\t\r\n\r\na\n\n\nb\n\n", []string{"a", "b"}},
		"blank last":           {"a\n  ", []string{"a"}},
		"spaces stay":          {" a \n", []string{" a "}},
		"long":                 {big + "\nb\n", []string{big, "b"}},
		"long, then the end":   {big, []string{big}},
		"long with CRLF":       {big + "\r\nb", []string{big, "b"}},
		"NUL is a byte":        {"a\x00b\n", []string{"a\x00b"}},
		"fits a buffer":        {strings.Repeat("y", 64<<10) + "\nb\n", []string{strings.Repeat("y", 64<<10), "b"}},
		"one less than buffer": {strings.Repeat("y", 64<<10-1) + "\nb\n", []string{strings.Repeat("y", 64<<10-1), "b"}},
	} {
		for how, in := range map[string]io.Reader{
			"whole":        strings.NewReader(c.in),
			"byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
			"data and end": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				got, err := lines(wire.NewReader(in, 1<<20))
				if err != io.EOF {
					t.Errorf("the error is %v, want io.EOF", err)
				}
				if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
					t.Errorf("got %.200q, want %.200q", got, c.want)
				}
			})
		}
	}
}

func TestReaderBound(t *testing.T) {
	t.Parallel()
	for _, max := range []int{1, 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
		for _, end := range []string{"\n", "\nnext\n", ""} {
			exact := wire.NewReader(strings.NewReader(strings.Repeat("x", max)+end), max)
			if line, err := exact.Line(); err != nil || len(line) != max {
				t.Errorf("max %d, end %q: a line of the bound gives %d bytes, %v", max, end, len(line), err)
			}
			over := wire.NewReader(strings.NewReader(strings.Repeat("x", max+1)+end), max)
			if line, err := over.Line(); err != wire.ErrTooLong {
				t.Errorf("max %d, end %q: a longer line gives %d bytes, %v", max, end, len(line), err)
			}
		}
	}
}

// TestReaderHoldsNoMoreThanItsBound: a line without end is not read to its end.
func TestReaderHoldsNoMoreThanItsBound(t *testing.T) {
	t.Parallel()
	const max = 1 << 20
	endless := &counting{Reader: zeros{}}
	if _, err := wire.NewReader(endless, max).Line(); err != wire.ErrTooLong {
		t.Errorf("got %v", err)
	}
	if endless.n > max+128<<10 {
		t.Errorf("%d bytes were read for a bound of %d", endless.n, max)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	if c.n > 1<<23 {
		return 0, errors.New("far too much has been read")
	}
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// TestRawBytesBetweenLines, whatever is in them, and wherever the stream is split.
func TestRawBytesBetweenLines(t *testing.T) {
	t.Parallel()
	const stream = "one\nab\ncd\n\r\ntwo\r\n\n\nxthree\n" // after one: 7 raw; after two: 3 raw
	for at := range len(stream) + 1 {
		r := wire.NewReader(io.MultiReader(strings.NewReader(stream[:at]), strings.NewReader(stream[at:])), 100)
		var got []string
		for _, raw := range []int{7, 3, 0} {
			line, err := r.Line()
			if err != nil {
				t.Fatalf("split at %d: %v", at, err)
			}
			got = append(got, string(line))
			p, err := r.Raw(raw)
			if err != nil {
				t.Fatalf("split at %d: %v", at, err)
			}
			got = append(got, string(p))
		}
		want := []string{"one", "ab\ncd\n\r", "two", "\n\nx", "three", ""}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("split at %d: got %q, want %q", at, got, want)
		}
		if _, err := r.Line(); err != io.EOF {
			t.Errorf("split at %d: at the end: %v", at, err)
		}
	}
}

func TestRawBytesAreTheCallersOwn(t *testing.T) {
	t.Parallel()
	r := wire.NewReader(strings.NewReader("a\n12b\n34"), 100)
	r.Line()
	first, _ := r.Raw(2)
	r.Line()
	second, _ := r.Raw(2)
	if string(first) != "12" || string(second) != "34" {
		t.Errorf("got %q and %q", first, second)
	}
}

func TestRawBytesCutShort(t *testing.T) {
	t.Parallel()
	for _, rest := range []string{"", "123"} {
		r := wire.NewReader(strings.NewReader("a\n"+rest), 100)
		r.Line()
		if p, err := r.Raw(4); !errors.Is(err, io.ErrUnexpectedEOF) || p != nil {
			t.Errorf("%d of 4 bytes: got %q, %v", len(rest), p, err)
		}
	}
}

func TestReaderPassesErrorsOn(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	got, err := lines(wire.NewReader(io.MultiReader(strings.NewReader("a\nhalf"), iotest.ErrReader(broken)), 100))
	if err != broken || len(got) != 1 || got[0] != "a" {
		t.Errorf("got %q, %v; half a line is none", got, err)
	}
}

// pair is a connected pair of Unix sockets.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ca, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cb, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close(); cb.Close() })
	return ca.(*net.UnixConn), cb.(*net.UnixConn)
}

// TestMessagesStayInOnePiece though many write at the same time.
func TestMessagesStayInOnePiece(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	w := wire.NewWriter(a, 20*time.Second, nil)
	const writers, each = 8, 50
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			raw := bytes.Repeat([]byte{byte('a' + i)}, 10_000+i)
			for range each {
				if err := w.Write(fmt.Appendf(nil, "%d %d", i, len(raw)), raw); err != nil {
					t.Error(err)
				}
				if err := w.Write(fmt.Appendf(nil, "%d 0", i), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { all.Wait(); a.Close() }()
	r := wire.NewReader(b, 100)
	n := 0
	for {
		line, err := r.Line()
		if err == io.EOF {
			break
		}
		var i, size int
		if _, serr := fmt.Sscanf(string(line), "%d %d", &i, &size); serr != nil || err != nil {
			t.Fatalf("message %d is %.100q: %v", n, line, err)
		}
		raw, err := r.Raw(size)
		if err != nil || len(bytes.Trim(raw, string(rune('a'+i)))) != 0 {
			t.Fatalf("message %d: the raw bytes are another's: %v", n, err)
		}
		n++
	}
	if n != 2*writers*each {
		t.Errorf("%d messages arrived, want %d", n, 2*writers*each)
	}
}

func TestWriterFailsForEverAfterAnError(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	w := wire.NewWriter(a, 20*time.Millisecond, nil)
	var first error
	for first == nil { // nobody reads: at some time the socket is full
		first = w.Write([]byte("message"), make([]byte, 64<<10))
	}
	if !errors.Is(first, os.ErrDeadlineExceeded) {
		t.Errorf("the error is %v, want a timeout", first)
	}
	go io.Copy(io.Discard, b) // now there would be room
	for range 3 {
		if err := w.Write([]byte("next"), nil); err != first {
			t.Errorf("a later Write gives %v, want the same error", err)
		}
	}
}

// TestWriterTimeoutIsPerMessage: a slow but steady reader is no reason to give up.
func TestWriterTimeoutIsPerMessage(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	w := wire.NewWriter(a, 2*time.Second, nil)
	if err := w.Write([]byte("one"), nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond) // the promise is about time
	if err := w.Write([]byte("two"), nil); err != nil {
		t.Errorf("a message after a pause: %v", err)
	}
	a.Close()
	if got, _ := io.ReadAll(b); string(got) != "one\ntwo\n" {
		t.Errorf("got %q", got)
	}
}

func TestWriterWithoutTimeout(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.SetWriteDeadline(time.Time{})
	w := wire.NewWriter(a, 0, nil)
	done := make(chan error, 1)
	go func() { done <- w.Write([]byte("m"), make([]byte, 4<<20)) }()
	n, err := io.CopyN(io.Discard, b, 2+4<<20)
	if err != nil || n != 2+4<<20 {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
