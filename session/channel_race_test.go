package session_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// TestChannelsEndCleanlyAtAnyMoment does random things with connections that have a data channel:
// the caller, the peer and calls act on them. Then it ends the session. No call, connection or
// goroutine must be left.
func TestChannelsEndCleanlyAtAnyMoment(t *testing.T) {
	t.Parallel()
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for i := range rounds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			anyMoment(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func anyMoment(t *testing.T, rnd *rand.Rand) {
	write := time.Duration(1+rnd.IntN(100)) * time.Millisecond
	r := newRig(t, timeouts(session.Timeouts{Write: write, Close: moment}))
	r.SetStallTimeout(moment)
	peers := []int{r.echo(), testkit.Silent(t),
		testkit.Serve(t, func(nc net.Conn) { deaf(r, nc); <-t.Context().Done() }),
		// a peer that resets the connection
		r.serve(func(c *tls.Conn, nc *net.TCPConn) {
			io.CopyN(c, c, int64(rand.IntN(200000)))
			nc.SetLinger(0)
		}),
		// a peer that sends no close_notify
		r.serve(func(c *tls.Conn, nc *net.TCPConn) {
			io.CopyN(c, c, int64(rand.IntN(200000)))
		}),
	}
	ctx, port := r.server(), testkit.Port(t) // handle 1

	var outside sync.WaitGroup
	defer outside.Wait()
	var callers []net.Conn
	channel := func() *net.UnixConn {
		c, worker := pair(t)
		callers = append(callers, c)
		outside.Go(func() { io.Copy(io.Discard, c) })
		return worker
	}
	caller := func(f func(c net.Conn)) {
		if len(callers) > 0 {
			c := callers[rnd.IntN(len(callers))]
			outside.Go(func() { f(c) })
		}
	}
	h := func() session.Handle { return session.Handle(1 + rnd.IntN(12)) }
	var calls []*running
	call := func(c *session.Call) { calls = append(calls, r.start(c)) }
	moves := []func(){
		func() { call(r.NewClient("localhost", peers[rnd.IntN(len(peers))])) },
		func() { call(r.Session.Handshake(h(), channel())) },
		func() { call(r.Session.Handshake(h(), channel())) },
		func() { call(r.Session.Accept(ctx, local, port, channel())) },
		func() {
			outside.Go(func() {
				nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err == nil {
					defer nc.Close()
					deafClient(r, nc)
				}
			})
		},
		func() { call(r.Status(h())) },
		func() { call(r.Status(h())) },
		func() { call(r.Flush(h(), int64(rnd.IntN(300000)))) },
		func() { call(r.Shutdown(h())) },
		func() { call(r.SetTimeout(h(), time.Duration(rnd.IntN(20))*time.Millisecond)) },
		func() { call(r.Close(h())) },
		func() { call(r.Read(h(), 10)) },
		func() { call(r.Write(h(), []byte("x"))) },
		func() { caller(func(c net.Conn) { c.Write(make([]byte, rand.IntN(300000))) }) },
		func() { caller(func(c net.Conn) { c.Write(make([]byte, rand.IntN(300000))) }) },
		func() { caller(func(c net.Conn) { c.(*net.UnixConn).CloseWrite() }) },
		func() { caller(func(c net.Conn) { c.Close() }) },
		func() {
			if len(calls) > 0 {
				calls[rnd.IntN(len(calls))].Cancel()
			}
		},
		func() {
			if len(calls) > 0 {
				select { // let something happen
				case <-calls[rnd.IntN(len(calls))].done:
				case <-time.After(time.Duration(rnd.IntN(5)) * time.Millisecond):
				}
			}
		},
	}
	for range 50 + rnd.IntN(150) {
		moves[rnd.IntN(len(moves))]()
	}
	r.gone()
	for _, c := range calls {
		if _, err := c.wait(); err != nil && err.(*session.Error).Kind == kind.Internal {
			t.Errorf("a call has failed with an internal error: %v", err)
		}
	}
	if n := r.Busy(); n != 0 {
		t.Errorf("%d calls have not ended with the session, want 0", n)
	}
	for _, c := range callers {
		c.Close()
	}
}
