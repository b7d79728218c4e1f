package soak

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// An order is the request of a caller to a peer: the first bytes that the caller sends.
type order struct {
	// token identifies the order. It is also the key of the stream that the caller sends, and
	// so decides the bytes of this stream (pattern_test.go).
	token uint64
	// up is the number of bytes that the caller sends, and down the number of bytes that it
	// gets. The stream that it gets has the key ^token.
	up, down uint64
	// If halfClose is not 0, the peer sends its whole stream and ends it before it receives.
	halfClose uint64
}

const orderBytes = 32

func (o order) bytes() []byte {
	var b []byte
	for _, v := range []uint64{o.token, o.up, o.down, o.halfClose} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// A peer is a server of crypto/tls that follows orders.
type peer struct {
	t        *testing.T
	listener net.Listener
	port     int
	open     atomic.Int64
	serving  sync.WaitGroup
	results  sync.Map // token to chan error
}

func startPeer(t *testing.T, cert *testcert.Cert) *peer {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cert.Config())
	testkit.Must(t, err)
	p := &peer{t: t, listener: l, port: l.Addr().(*net.TCPAddr).Port}
	p.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.open.Add(1)
			p.serving.Go(func() {
				defer p.open.Add(-1)
				defer conn.Close()
				p.serve(conn.(*tls.Conn))
			})
		}
	})
	return p
}

// stop ends the peer. All its connections must have ended.
func (p *peer) stop() {
	p.listener.Close()
	p.serving.Wait()
}

// expect prepares a channel for the result of an order.
func (p *peer) expect(o order) <-chan error {
	ch := make(chan error, 1)
	p.results.Store(o.token, ch)
	return ch
}

func (p *peer) serve(conn *tls.Conn) {
	conn.SetDeadline(time.Now().Add(2 * testkit.Patience))
	head := make([]byte, orderBytes)
	if _, err := io.ReadFull(conn, head); err != nil {
		return // the caller has ended before it has sent an order
	}
	v := func(i int) uint64 { return binary.BigEndian.Uint64(head[8*i:]) }
	o := order{v(0), v(1), v(2), v(3)}
	result, ok := p.results.LoadAndDelete(o.token)
	if !ok {
		return // nobody waits for the result: the caller's scene (arena_test.go) is over
	}
	sent := make(chan error, 1)
	send := func() {
		_, err := conn.Write(filled(^o.token, 0, int(o.down)))
		if err == nil {
			err = conn.CloseWrite()
		}
		sent <- err
	}
	if o.halfClose != 0 {
		send()
	} else {
		go send()
	}
	got, err := receive(conn, o.token)
	if err == nil && got != int(o.up) {
		err = fmt.Errorf("the caller's stream ends after %d of %d bytes", got, o.up)
	}
	if errors.As(err, new(wrongByte)) {
		p.t.Errorf("the peer has got a stream with %v", err)
	}
	// The caller's stream has ended, because the caller has sent everything or is gone. If the
	// caller is gone, nobody reads what is sent here, so only the deadline ends the sending.
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	result.(chan error) <- errors.Join(err, <-sent)
}

// A wrongByte is an error in the data: a byte is wrong, or our side's Read reports the end in a
// wrong position. It is a failure even if the soak has killed a worker or a caller. If the peer's
// Read reports the end too early, this is no wrongByte, because a kill may be the cause.
type wrongByte struct{ error }

// receive reads the stream with this key to its end.
func receive(r io.Reader, key uint64) (int, error) {
	at, buf := 0, make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if bad := wrong(key, at, buf[:n]); bad != nil {
			return at, wrongByte{bad}
		}
		at += n
		if err == io.EOF {
			return at, nil
		}
		if err != nil {
			return at, err
		}
	}
}
