package wire_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"tlsd/rpc/wire"
)

// FuzzReader lets a Reader read any bytes, in one piece and byte by byte. It compares the lines
// with the result of bytes.SplitAfter.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb\n", "a\r\n\r\nb", "aaaaaaaaaaaaaaaaaaaaa\n",
		" \t\n", "a\n\x00\xff\n", "\r\n\r"} {
		f.Add([]byte(s))
	}
	const max = 16
	f.Fuzz(func(t *testing.T, data []byte) {
		var want []string
		var wantErr error = io.EOF
		for _, line := range bytes.SplitAfter(data, []byte("\n")) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			if len(line) > max {
				wantErr = wire.ErrTooLong
				break
			}
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(bytes.TrimSpace(line)) > 0 {
				want = append(want, string(line))
			}
		}
		check := func(r *wire.Reader) {
			got, err := lines(r)
			if !errors.Is(err, wantErr) ||
				strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%q: the lines are %q, %v; want %q, %v", data, got, err,
					want, wantErr)
			}
		}
		check(wire.NewReader(bytes.NewReader(data), max))
		check(wire.NewReader(iotest.OneByteReader(bytes.NewReader(data)), max))
	})
}
