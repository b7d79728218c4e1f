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

	"tlsd/internal/testkit"
	"tlsd/rpc/wire"
)

// lines reads all lines, up to an error.
func lines(r *wire.Reader) (got []string, err error) {
	for {
		line, err := r.Line()
		if err != nil {
			return got, err
		}
		got = append(got, string(line))
	}
}

// The Reader returns each line without LF or CRLF, however the stream is cut into reads. It leaves
// out lines of white space.
func TestReaderGivesLinesWithoutTheirEnds(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 100_000) // more than the reader's own buffer
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"nothing":            {"", nil},
		"one":                {"a\n", []string{"a"}},
		"two":                {"a\nb\n", []string{"a", "b"}},
		"last without end":   {"a\nb", []string{"a", "b"}},
		"CRLF":               {"a\r\nb\r\n", []string{"a", "b"}},
		"last with CR only":  {"a\r", []string{"a"}},
		"CR inside stays":    {"a\rb\n", []string{"a\rb"}},
		"blank":              {"\n\n  \n\t\r\n\r\na\n\n\nb\n\n", []string{"a", "b"}},
		"blank last":         {"a\n  ", []string{"a"}},
		"spaces stay":        {" a \n", []string{" a "}},
		"long":               {big + "\nb\n", []string{big, "b"}},
		"long, then the end": {big, []string{big}},
		"long with CRLF":     {big + "\r\nb", []string{big, "b"}},
		"NUL is a byte":      {"a\x00b\n", []string{"a\x00b"}},
		"fits a buffer": {strings.Repeat("y", 64<<10) + "\nb\n",
			[]string{strings.Repeat("y", 64<<10), "b"}},
		"one less than buffer": {strings.Repeat("y", 64<<10-1) + "\nb\n",
			[]string{strings.Repeat("y", 64<<10-1), "b"}},
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
					t.Errorf("the lines are %.200q, want %.200q", got, c.want)
				}
			})
		}
	}
}

// A line of exactly max bytes is returned. A longer line is the error ErrTooLong.
func TestReaderBound(t *testing.T) {
	t.Parallel()
	for _, max := range []int{1, 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
		for _, end := range []string{"\n", "\nnext\n", ""} {
			exact := wire.NewReader(strings.NewReader(strings.Repeat("x", max)+end),
				max)
			if line, err := exact.Line(); err != nil || len(line) != max {
				t.Errorf("max %d, end %q: a line of max bytes gives %d bytes, "+
					"%v; want the whole line", max, end, len(line), err)
			}
			over := wire.NewReader(strings.NewReader(strings.Repeat("x", max+1)+end),
				max)
			if line, err := over.Line(); err != wire.ErrTooLong {
				t.Errorf("max %d, end %q: a longer line gives %d bytes, %v; "+
					"want ErrTooLong", max, end, len(line), err)
			}
		}
	}
}

// If a line does not end, the Reader gives up soon after max bytes, so it needs little memory.
func TestReaderHoldsNoMoreThanItsBound(t *testing.T) {
	t.Parallel()
	const max = 1 << 20
	endless := &counting{Reader: sameByte{}}
	if _, err := wire.NewReader(endless, max).Line(); err != wire.ErrTooLong {
		t.Errorf("a line without end gives %v, want ErrTooLong", err)
	}
	if endless.n > max+128<<10 {
		t.Errorf("%d bytes were read, although a line may have only %d", endless.n, max)
	}
}

// sameByte is a stream of the letter x without end.
type sameByte struct{}

func (sameByte) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// counting counts the bytes that are read from a Reader. It fails after 8 MiB, so that no test
// reads an endless stream for ever.
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

// Start returns the offset of the newest line in the stream, wherever the stream is cut into two
// reads.
func TestReaderKnowsWhereALineBegan(t *testing.T) {
	t.Parallel()
	const stream = "one\n\n\r\ntwo\r\nthree"
	for cut := range len(stream) + 1 {
		r := wire.NewReader(io.MultiReader(strings.NewReader(stream[:cut]),
			strings.NewReader(stream[cut:])), 100)
		for _, line := range []string{"one", "two", "three"} {
			got, err := r.Line()
			if want := int64(strings.Index(stream, line)); err != nil ||
				string(got) != line || r.Start() != want {
				t.Errorf("cut at %d: got %q at %d, %v; want %q at %d", cut, got,
					r.Start(), err, line, want)
			}
		}
	}
}

// If the stream fails in the middle of a line, the Reader returns the stream's error, and not the
// half line.
func TestReaderPassesErrorsOn(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	got, err := lines(wire.NewReader(io.MultiReader(strings.NewReader("a\nhalf"),
		iotest.ErrReader(broken)), 100))
	if err != broken || len(got) != 1 || got[0] != "a" {
		t.Errorf("the lines are %q, %v; want only a, and the stream's error", got, err)
	}
}

// If many goroutines write messages at the same time, each message arrives in one piece.
func TestMessagesStayInOnePiece(t *testing.T) {
	t.Parallel()
	a, b := testkit.UnixPair(t)
	w := wire.NewWriter(a, testkit.Patience, nil)
	const writers, each = 8, 50
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			long := bytes.Repeat([]byte{byte('a' + i)}, 10_000+i)
			for range each {
				if err := w.Write(long); err != nil {
					t.Error(err)
				}
				if err := w.Write(long[:1]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { all.Wait(); a.Close() }()
	r := wire.NewReader(b, 20_000)
	n := 0
	for {
		line, err := r.Line()
		if err == io.EOF {
			break
		}
		if err != nil || len(bytes.Trim(line, string(line[:1]))) != 0 ||
			len(line) != 1 && len(line) != 10_000+int(line[0]-'a') {
			t.Fatalf("message %d has %d bytes, which are mixed with another "+
				"message, or the read failed: %v", n, len(line), err)
		}
		n++
	}
	if n != 2*writers*each {
		t.Errorf("%d messages arrived, want %d", n, 2*writers*each)
	}
}

// After a failed Write, each Write returns the same error and sends nothing: a part of the failed
// message may have been sent.
func TestWriterFailsForEverAfterAnError(t *testing.T) {
	t.Parallel()
	a, b := testkit.UnixPair(t)
	w := wire.NewWriter(a, 20*time.Millisecond, nil)
	var first error
	for first == nil { // no program reads, so the socket fills up
		first = w.Write(make([]byte, 64<<10))
	}
	if !errors.Is(first, os.ErrDeadlineExceeded) {
		t.Errorf("the peer does not read, and Write returns %v; want a timeout", first)
	}
	go io.Copy(io.Discard, b) // now there is room
	for range 3 {
		if err := w.Write([]byte("next")); err != first {
			t.Errorf("a later Write returns %v, want %v", err, first)
		}
	}
}

// A clocked is a connection that takes all bytes at once, and records its write deadlines.
type clocked struct {
	net.Conn
	deadlines []time.Time
}

func (*clocked) Write(p []byte) (int, error) { return len(p), nil }
func (c *clocked) SetWriteDeadline(d time.Time) error {
	c.deadlines = append(c.deadlines, d)
	return nil
}

// Each message has the full timeout. So if a program reads slowly, but reads, no Write times out.
func TestWriterTimeoutIsPerMessage(t *testing.T) {
	t.Parallel()
	const timeout = time.Hour
	c := &clocked{}
	w := wire.NewWriter(c, timeout, nil)
	for i := range 3 {
		begun := time.Now()
		if err := w.Write([]byte("message")); err != nil {
			t.Fatal(err)
		}
		if len(c.deadlines) != i+1 || c.deadlines[i].Before(begun.Add(timeout)) {
			t.Errorf("message %d, begun at %v: the deadlines of all messages are "+
				"%v; want one for each message, the newest an hour after its begin",
				i, begun, c.deadlines)
		}
	}
}

// With the timeout 0, a Write waits for the peer as long as necessary.
func TestWriterWithoutTimeout(t *testing.T) {
	t.Parallel()
	a, b := testkit.UnixPair(t)
	a.SetWriteDeadline(time.Time{})
	w := wire.NewWriter(a, 0, nil)
	done := make(chan error, 1)
	go func() { done <- w.Write(make([]byte, 4<<20)) }()
	n, err := io.CopyN(io.Discard, b, 1+4<<20)
	if err != nil || n != 1+4<<20 {
		t.Errorf("the peer has read %d bytes, %v; want %d", n, err, 1+4<<20)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
