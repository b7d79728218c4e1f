package conformance

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"testing"

	"tlsd/rpc/client"
)

// Every endpoint talks with every other one: a request and a reply, and much data both ways.

// In each pair the two sides agree on TLS 1.3, and the client sees the certificate of the server.
// They exchange data, and one of them ends the connection cleanly.
func TestRequestAndReply(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, first := range []role{asClient, asServer} {
		n := needs{client: []ability{endFirst}}
		if first == asServer {
			n = needs{server: []ability{endFirst}}
		}
		t.Run("the "+string(first)+" ends", func(t *testing.T) {
			t.Parallel()
			overPairs(t, n, func(t *testing.T, cl, sv endpoint) {
				c, s := connect(t, w, cl, sv, dialOptions{}, listenOptions{})
				if got := c.peerSubject(); got != "/CN=localhost" {
					t.Errorf("%s sees the server as %q, want /CN=localhost", cl,
						got)
				}
				if got := s.peerSubject(); got != "" {
					t.Errorf("%s sees the client as %q, which has no "+
						"certificate", sv, got)
				}
				if c.version() != "TLSv1.3" || s.version() != "TLSv1.3" {
					t.Errorf("negotiated %q and %q, want TLSv1.3", c.version(),
						s.version())
				}
				greet(t, cl, sv, c, s)
				greet(t, cl, sv, c, s)
				if first == asClient {
					closeStream(t, cl, c)
					expectEnd(t, sv, s)
					closeStream(t, sv, s)
				} else {
					closeStream(t, sv, s)
					expectEnd(t, cl, c)
					closeStream(t, cl, c)
				}
			})
		})
	}
}

// A peer that offers only TLS 1.2 is served, as the client and as the server.
func TestPeersWithTLS12Only(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, old := range []role{asClient, asServer} {
		n := needs{client: []ability{endFirst, oneVersion}}
		do, lo := dialOptions{only: tls.VersionTLS12}, listenOptions{}
		if old == asServer {
			n = needs{client: []ability{endFirst}, server: []ability{oneVersion}}
			do, lo = dialOptions{}, listenOptions{only: tls.VersionTLS12}
		}
		t.Run("the "+string(old), func(t *testing.T) {
			t.Parallel()
			overPairs(t, n, func(t *testing.T, cl, sv endpoint) {
				c, s := connect(t, w, cl, sv, do, lo)
				if c.version() != "TLSv1.2" || s.version() != "TLSv1.2" {
					t.Errorf("negotiated %q and %q, want TLSv1.2", c.version(),
						s.version())
				}
				if got := c.peerSubject(); got != "/CN=localhost" {
					t.Errorf("%s sees the server as %q, want /CN=localhost", cl,
						got)
				}
				greet(t, cl, sv, c, s)
				closeStream(t, cl, c)
				expectEnd(t, sv, s)
				closeStream(t, sv, s)
			})
		})
	}
}

// A peer that offers only TLS 1.1 is refused, because TLS 1.1 must not be used (RFC 8996). Pairs
// without our side can connect with TLS 1.1 in this test. So a refusal comes from our side.
func TestPeersWithTLS11OnlyAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, old := range []role{asClient, asServer} {
		n := needs{client: []ability{oneVersion}, server: []ability{takeTLS11}}
		do, lo := dialOptions{only: tls.VersionTLS11}, listenOptions{}
		if old == asServer {
			n = needs{client: []ability{takeTLS11}, server: []ability{oneVersion}}
			do, lo = dialOptions{}, listenOptions{only: tls.VersionTLS11}
		}
		do.ca, lo.cert = w.ca.File, w.cert
		t.Run("the "+string(old), func(t *testing.T) {
			t.Parallel()
			overPairs(t, n, func(t *testing.T, cl, sv endpoint) {
				l := sv.listen(t, lo)
				accepted := accepting(t, l)
				c, clientErr := cl.dial(t, address{"localhost", l.port()}, do)
				a := <-accepted
				var e *client.Error
				switch {
				case isOurs(cl):
					e = failure(clientErr)
				case isOurs(sv):
					e = failure(a.err)
				default:
					if clientErr != nil || a.err != nil ||
						c.version() != "TLSv1.1" {
						t.Errorf("%s as the client: %v; %s as the "+
							"server: %v; want TLS 1.1", cl, clientErr,
							sv, a.err)
					}
					return
				}
				if clientErr == nil || a.err == nil || e == nil {
					t.Fatalf("%s as the client: %v; %s as the server: %v; "+
						"want both to fail", cl, clientErr, sv, a.err)
				}
				if !isKind(e, client.KindHandshake) ||
					!mentions(e, "TLS 1.2 or newer") &&
						!mentions(e, "protocol_version") ||
					tells(e) && len(e.Data.OpenSSL) == 0 {
					t.Errorf("kind %q, text %q, OpenSSL's queue %q; want "+
						"kind handshake, the version in the text, "+
						"and a queue", e.Kind, e.Message,
						e.Data.OpenSSL)
				}
			})
		})
	}
}

// Data that goes in both directions at the same time, in pieces of all sizes, arrives unchanged.
// Our side and crypto/tls exchange 64 MiB each way, other pairs 8 MiB. The level daemon sends
// base64, which is slow, so it exchanges 2 MiB.
func TestMuchDataBothWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	overPairs(t, needs{client: []ability{endFirst}}, func(t *testing.T, cl, sv endpoint) {
		base64 := cl.String() == daemonLevel || sv.String() == daemonLevel
		foreign := cl == endpoint(goEndpoint{}) || sv == endpoint(goEndpoint{})
		size := 8 << 20
		switch {
		case base64:
			size = 2 << 20
		case foreign && isOurs(cl) != isOurs(sv):
			size = 64 << 20
		}
		c, s := connect(t, w, cl, sv, dialOptions{}, listenOptions{})
		type result struct {
			what   string
			n      int
			digest string
			err    error
		}
		results := make(chan result, 4)
		go func() {
			n, d, err := produce(c, 1, size)
			results <- result{cl.String() + " as the client writes", n, d, err}
		}()
		go func() {
			n, d, err := produce(s, 2, size)
			results <- result{sv.String() + " as the server writes", n, d, err}
		}()
		go func() {
			n, d, err := consume(s, size)
			results <- result{sv.String() + " as the server reads", n, d, err}
		}()
		go func() {
			n, d, err := consume(c, size)
			results <- result{cl.String() + " as the client reads", n, d, err}
		}()
		digests := map[string]int{}
		for range 4 {
			r := <-results
			if r.n != size || r.err != nil {
				t.Fatalf("%s %d bytes, and then fails: %v", r.what, r.n, r.err)
			}
			digests[r.digest]++
		}
		// Of each of the two streams, the writer and the reader must have the same digest.
		if len(digests) != 2 {
			t.Errorf("the data that was read is not what was written: digests %v",
				digests)
		}
		for d, n := range digests {
			if n != 2 {
				t.Errorf("digest %s was seen %d times, want 2: by the writer and "+
					"by the reader", d, n)
			}
		}
		closeStream(t, cl, c)
		expectEnd(t, sv, s)
		closeStream(t, sv, s)
	})
}

// produce writes size bytes, which depend on the seed. It returns their number and digest.
func produce(w io.Writer, seed byte, size int) (int, string, error) {
	random := rand.NewChaCha8([32]byte{seed})
	sizes := rand.New(rand.NewPCG(uint64(seed), 0))
	sum := sha256.New()
	for n := 0; ; {
		if n == size {
			return n, hex.EncodeToString(sum.Sum(nil)), nil
		}
		piece := make([]byte, min(size-n, 1+sizes.IntN(1<<sizes.IntN(22))))
		random.Read(piece)
		copy(piece, marker)
		m, err := w.Write(piece)
		sum.Write(piece[:m])
		if n += m; err != nil {
			return n, "", err
		}
	}
}

// consume reads size bytes, and returns their number and digest.
func consume(r io.Reader, size int) (int, string, error) {
	buf := make([]byte, 1<<20)
	sum := sha256.New()
	for n := 0; ; {
		if n == size {
			return n, hex.EncodeToString(sum.Sum(nil)), nil
		}
		m, err := r.Read(buf[:min(len(buf), size-n)])
		sum.Write(buf[:m])
		if n += m; err != nil {
			return n, "", err
		}
	}
}
