package session_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"tlsd/internal/testalloc"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// pipeEngine is an idleEngine whose connection is an echo: each Write gives its bytes to one
// ReadSome.
type pipeEngine struct {
	idleEngine
	conn *pipeConn
}

type pipeConn struct {
	idleConn
	late chan struct{} // for each element, one Write succeeds only after its timeout
	back chan []byte
	// Write copies its bytes into these buffers in turn. Fewer than 8 are in use at the same
	// time, so Write never overwrites bytes that are still to be read.
	copies [8][64 << 10]byte
	next   int
}

func (e pipeEngine) NewClientContext(session.CABundle) (session.EngineContext, error) {
	return e, nil
}
func (pipeEngine) RequireTLS13()                                   {}
func (pipeEngine) Free()                                           {}
func (pipeEngine) Server(*net.TCPConn) (session.EngineConn, error) { panic("none") }

func (e pipeEngine) Client(nc *net.TCPConn, _ string) (session.EngineConn, error) {
	e.conn.nc = nc
	return e.conn, nil
}

func (c *pipeConn) Write(ctx context.Context, p []byte) (int, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	select {
	case <-c.late:
		<-ctx.Done()
	default:
	}
	copied := c.copies[c.next][:copy(c.copies[c.next][:], p)]
	c.next = (c.next + 1) % len(c.copies)
	c.back <- copied
	return len(p), nil
}

func (c *pipeConn) ReadSome(ctx context.Context, _ int) ([]byte, error) {
	select {
	case p := <-c.back:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (*pipeConn) CloseWrite(context.Context) error { return nil }

// pipe returns a session, and the caller's end of a data channel. The session has only the
// connection conn. The parameter bound is its write timeout.
func pipe(t *testing.T, conn *pipeConn, bound time.Duration) (*session.Session, *net.UnixConn) {
	t.Helper()
	conn.back = make(chan []byte)
	timeouts := session.Timeouts{Write: bound}
	s := session.New(session.Config{Engine: pipeEngine{conn: conn}, Timeouts: timeouts})
	t.Cleanup(s.End)
	c, worker := pair(t)
	must(t, s.NewClient("localhost", testkit.Silent(t)))
	must(t, s.Handshake(1, worker))
	return s, c
}

func must(t *testing.T, c *session.Call) {
	t.Helper()
	if _, err := c.Run(); err != nil {
		t.Fatal(err)
	}
}

// TestAPieceThatIsLateAndSucceedsFailsNoLaterOne: the pump sends the bytes of the caller in pieces,
// each with a timeout. A piece may succeed although its timeout has passed, because its thread has
// waited for a processor, and not for the peer. Then the later pieces must not fail.
func TestAPieceThatIsLateAndSucceedsFailsNoLaterOne(t *testing.T) {
	t.Parallel()
	conn := &pipeConn{late: make(chan struct{}, 1)}
	s, c := pipe(t, conn, moment)
	for range 3 {
		conn.late <- struct{}{}
		for range 2 {
			send(t, c, []byte("x"))
			receive(t, c, 1)
		}
	}
	must(t, s.Close(1))
}

// TestAPieceOfAChannelCostsNoAllocation: neither a piece to the peer nor a piece from the peer
// allocates a buffer.
func TestAPieceOfAChannelCostsNoAllocation(t *testing.T) {
	if raceDetector {
		t.Skip("with the race detector, sync.Pool drops buffers at random; this test " +
			"needs a run without the race detector")
	}
	s, c := pipe(t, &pipeConn{}, era)
	p := make([]byte, 32<<10)
	const most = 256 // bytes
	// Not 0: in each round unix.Recvfrom allocates two addresses of 112 bytes. And the pool
	// keeps a piece of 64 KiB for each processor, which no other processor can take. With so
	// many calls, these few pieces count little.
	if got := testalloc.PerCall(20000, func() {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
	}); got > most {
		t.Errorf("a piece to the peer and back allocates %d bytes, want at most %d", got,
			most)
	}
	must(t, s.Close(1))
}
