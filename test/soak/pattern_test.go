package soak

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// What is sent is never the same from stream to stream and from place to place, so that each
// byte that arrives can be judged: it is the key'th stream's byte at that place, or it is wrong.

// period of the pattern, a prime that no buffer's size is a multiple of.
const period = 65521

// ring has the pattern twice, so that a period can be taken from any place.
var ring = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	once := make([]byte, period)
	for i := range once {
		once[i] = byte(random.Uint32())
	}
	return append(once, once...)
}()

// piece is n bytes of the key'th stream from place at on, at most a period.
func piece(key uint64, at, n int) []byte {
	from := int((key + uint64(at)) % period)
	return ring[from : from+min(n, period)]
}

// filled is n bytes of the stream from place at on.
func filled(key uint64, at, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, piece(key, at+len(out), n-len(out))...)
	}
	return out
}

// wrong says where p, which has come at place at of the stream, is not what was sent.
func wrong(key uint64, at int, p []byte) error {
	for len(p) > 0 {
		want := piece(key, at, len(p))
		if !bytes.Equal(p[:len(want)], want) {
			for i := range want {
				if p[i] != want[i] {
					return fmt.Errorf("a wrong byte at %d: %#x, not %#x", at+i, p[i], want[i])
				}
			}
		}
		at, p = at+len(want), p[len(want):]
	}
	return nil
}
