package soak

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// Each stream of data has a key. The data differs from key to key and from position to position. So
// each byte that arrives can be checked: the key and the position decide which byte it must be.

// period is the period of the pattern, a prime. No size of a buffer is a multiple of it.
const period = 65521

// ring has the pattern twice, so that a period can be taken from any position.
var ring = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	once := make([]byte, period)
	for i := range once {
		once[i] = byte(random.Uint32())
	}
	return append(once, once...)
}()

// piece returns n bytes of the stream with this key, from position pos on. It returns at most one
// period.
func piece(key uint64, pos, n int) []byte {
	from := int((key + uint64(pos)) % period)
	return ring[from : from+min(n, period)]
}

// filled returns n bytes of the stream, from position pos on.
func filled(key uint64, pos, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, piece(key, pos+len(out), n-len(out))...)
	}
	return out
}

// wrong returns an error if p is not what the stream with this key has from position pos on. The
// error names the position of the first wrong byte.
func wrong(key uint64, pos int, p []byte) error {
	for len(p) > 0 {
		want := piece(key, pos, len(p))
		if !bytes.Equal(p[:len(want)], want) {
			for i := range want {
				if p[i] != want[i] {
					return fmt.Errorf("a wrong byte at %d: %#x, not %#x", pos+i,
						p[i], want[i])
				}
			}
		}
		pos, p = pos+len(want), p[len(want):]
	}
	return nil
}
