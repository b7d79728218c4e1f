package session_test

import (
	"context"
	"io"
	"net"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testalloc"
	"tlsd/session"
)

// pipeEngine is an idle engine whose connections take all bytes, and give them back once.
type pipeEngine struct {
	idle
	conn *pipeConn
}

type pipeConn struct {
	idleConn
	back   chan []byte
	copies [8][64 << 10]byte // more than are on their way
	next   int
}

func (e pipeEngine) NewClientContext(session.CABundle) (session.EngineContext, error) { return e, nil }
func (pipeEngine) RequireTLS13()                                                      {}
func (pipeEngine) Free()                                                              {}
func (pipeEngine) Server(*net.TCPConn) (session.EngineConn, error)                    { panic("none") }

func (e pipeEngine) Client(nc *net.TCPConn, _ string) (session.EngineConn, error) {
	e.conn.nc = nc
	return e.conn, nil
}

func (c *pipeConn) Write(_ context.Context, p []byte) (int, error) {
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

// TestAPieceOfAChannelCostsNoAllocation, in either direction.
func TestAPieceOfAChannelCostsNoAllocation(t *testing.T) {
	if raceDetector {
		t.Skip("under the race detector sync.Pool drops pieces at random; the run without it counts")
	}
	conn := &pipeConn{back: make(chan []byte)}
	s := session.New(session.Config{Engine: pipeEngine{conn: conn}})
	t.Cleanup(s.End)
	must := func(v any, err error) any {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	h := must(s.NewClient("localhost", fakeengine.Silent(t)).Run()).(session.Handle)
	c, worker := pair(t)
	must(s.Handshake(h, worker).Run())
	p := make([]byte, 32<<10)
	const most = 256 // bytes
	// A piece of the pool may be lost at times, to a collection or to another processor.
	if got := testalloc.PerCall(5000, func() {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
	}); got > most {
		t.Errorf("a piece each way allocates %d bytes, more than %d", got, most)
	}
	must(s.Close(h).Run())
}
