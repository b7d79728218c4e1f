package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// The pumps of a connection with a data channel: two goroutines, of which each waits for one thing at a time. So a peer or a
// caller that is stuck delays nothing but its own direction.
//
//	out: channel ── take, at most 64 KiB ──▶ engine's Write, within the write timeout
//	in:  engine's ReadSome ──▶ channel, when the caller makes room
//
// An idle connection has two parked goroutines and no memory for bytes. The connection's Close owns the pumps, or else
// the session's End: it drains them, ends them and waits for both. All their waits end with ctx or by interrupt.

const (
	// inBytes is the most that is read from the peer at once.
	inBytes = 128 << 10
	// lastWords bounds the time that the in pump gets to meet the peer's reason, when a send has failed; but in tests.
	lastWords = time.Second
)

type pumps struct {
	c     *connection
	t     EngineConn
	ch    *channel
	limit *limiter // of the out pump's pieces

	ctx  context.Context // of both
	stop context.CancelCauseFunc

	outEnded, inEnded chan struct{} // closed when the pump has returned
	outOver           chan struct{} // closed when no more bytes leave
	inOver            chan struct{} // closed when nothing more comes from the peer, and that is published

	asked    atomic.Bool   // tls.Shutdown wants close_notify, whatever the caller does with the channel
	finished atomic.Bool   // the in pump has shut down its side of the channel, or is about to
	decide   sync.Once     // closes decided
	decided  chan struct{} // closed when tls.Shutdown, Close or End says what becomes of the outgoing direction
}

// attach starts the pumps of a connection that is ready. s.mu must be held.
func (c *connection) attach(ch *channel) {
	p := &pumps{
		c: c, t: c.tls, ch: ch,
		outEnded: make(chan struct{}), inEnded: make(chan struct{}),
		outOver: make(chan struct{}), inOver: make(chan struct{}), decided: make(chan struct{}),
	}
	p.ctx, p.stop = context.WithCancelCause(context.Background())
	p.limit = newLimiter(p.ctx, c.writeBound())
	c.pumps = p
	go p.out()
	go p.in()
}

// out is the out pump.
func (p *pumps) out() {
	defer close(p.outEnded)
	again := p.forward()
	close(p.outOver)
	if again {
		<-p.decided
		p.closeWrite()
	}
}

// forward carries bytes until no more come, or cannot leave. The caller may have deserted the channel: then it may still be decided
// whether close_notify is sent.
func (p *pumps) forward() (deserted bool) {
	for {
		data, n, err := p.ch.take()
		if n == 0 {
			return p.lastTaken(err)
		}
		err = p.write(data[:n])
		pieces.Put(data)
		if err != nil {
			p.failOut(err)
			return false
		}
	}
}

// write carries a piece to the peer.
func (p *pumps) write(data []byte) error {
	p.limit.begin(len(data))
	n, err := p.t.Write(p.limit.ctx, data)
	p.limit.end()
	p.c.s.moved()
	p.c.flow.change(event{sent: n})
	return err
}

// lastTaken looks why the channel gives no more; err is that of the attempt.
func (p *pumps) lastTaken(err error) (deserted bool) {
	switch {
	case interrupted(err):
		if p.ch.left() {
			p.failOut(context.Cause(p.ctx))
		}
	case err != nil && !callerGone(err):
		p.failOut(fail(kind.IO, "take bytes from the data channel: %v", err))
	case p.deserted():
		return true
	default:
		p.closeWrite()
	}
	return false
}

// closeWrite sends close_notify, unless the direction has failed, or Close or End does it.
func (p *pumps) closeWrite() {
	select {
	case <-p.decided:
		if !p.asked.Load() {
			return
		}
	default:
	}
	if !p.c.flow.writing() {
		return
	}
	p.limit.begin(0)
	err := p.t.CloseWrite(p.limit.ctx)
	p.limit.end()
	if err != nil {
		p.failOut(err)
		return
	}
	p.c.flow.change(event{write: stateShut})
}

// shutDown has the out pump send close_notify behind what the caller has sent.
func (p *pumps) shutDown() {
	p.asked.Store(true)
	p.decide.Do(func() { close(p.decided) })
	p.ch.fence()
}

// deserted says whether the caller has closed the channel, and not only shut down its sending side. Once we have shut down
// ours the two look the same: then the peer has said its last word, and it gets ours.
func (p *pumps) deserted() bool { return p.ch.closed() && !p.finished.Load() }

// failOut publishes why the outgoing direction has failed, and makes the caller's next send fail. If the network failed it,
// the peer may have said why: the in pump gets the chance to read so.
func (p *pumps) failOut(err error) {
	e := classify(p.limit.ctx, err, kind.IO)
	if e.Kind == kind.IO {
		late := time.NewTimer(p.c.s.lastWords)
		defer late.Stop()
		select {
		case <-p.inOver: // a fatal failure there is that of this direction, and is published
		case <-late.C:
		case <-p.ctx.Done():
		}
	} else {
		e.Why += fmt.Sprintf("; %d bytes have left before", p.c.flow.status().Sent)
	}
	p.c.flow.change(event{write: stateFailed, err: e})
	p.ch.fence()
	p.ch.discard()
}

// in is the in pump. When nothing more comes from the peer, it waits for its reset: a caller that only writes is to notice.
func (p *pumps) in() {
	defer close(p.inEnded)
	p.deliver()
	close(p.inOver)
	if st := p.c.flow.status(); st.Read == stateOpen || st.Write != stateOpen {
		return // the caller takes no more, or a send finds out, or there is nothing to fail
	}
	if err := p.t.WaitReset(p.ctx); err != nil && p.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		p.publish(event{write: stateFailed, err: classify(p.ctx, err, kind.IO)})
	}
}

// deliver gives the caller what the peer sends, to its end, which it publishes; or until the caller takes no more.
func (p *pumps) deliver() {
	for {
		data, err := p.t.ReadSome(p.ctx, inBytes)
		if err != nil {
			if e, ended := readEnd(p.ctx, err); ended {
				p.publish(e)
			}
			return
		}
		n, err := p.ch.put(data)
		openssl.Recycle(data)
		p.c.s.moved()
		p.c.flow.change(event{received: n})
		if err != nil {
			if !interrupted(err) && !callerGone(err) {
				p.publish(event{read: stateFailed, err: fail(kind.IO, "pass bytes to the data channel: %v", err)})
			}
			return
		}
	}
}

// publish changes the flow, and then tells the caller on the channel.
func (p *pumps) publish(e event) {
	readEnded, writeEnded := p.c.flow.change(e)
	if readEnded {
		p.finished.Store(true)
		p.ch.finish()
	}
	if writeEnded {
		p.ch.fence()
	}
}

// readEnd is what the error of a read means for both directions. It has not ended anything if the wait was ended from this side.
// A peer that has sent close_notify, or was cut without it, may go on reading. After everything else nothing can be sent either, for
// the same reason.
func readEnd(ctx context.Context, err error) (e event, ended bool) {
	switch {
	case errors.Is(err, io.EOF):
		return event{read: stateEnd}, true
	case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
		return e, false
	}
	e = event{read: stateFailed, err: classify(ctx, err, kind.IO)}
	if !errors.Is(err, openssl.ErrTruncated) {
		e.write = stateFailed
	}
	return e, true
}

// drain makes the caller's next send fail, and lets all that it has sent before leave, within the write timeout for each piece. If
// ctx ends, what is left is given up; but if that is because the session has ended, only after Timeouts.Close.
func (p *pumps) drain(ctx context.Context) {
	s := p.c.s
	p.decide.Do(func() { close(p.decided) })
	p.ch.fence()
	select {
	case <-p.outEnded:
		return
	case <-ctx.Done():
	}
	why := context.Cause(ctx)
	if why == error(errEnded) {
		late, stop := context.WithTimeout(s.patience, s.Timeouts.Close)
		defer stop()
		select {
		case <-p.outEnded:
			return
		case <-late.Done():
		}
	}
	p.interrupt(why)
	<-p.outEnded
}

// interrupt ends the waits of both pumps.
func (p *pumps) interrupt(why error) {
	p.decide.Do(func() { close(p.decided) })
	p.stop(why)
	p.ch.interrupt()
}

// end ends the pumps, waits for them, and closes the channel. What has not left by then is lost.
func (p *pumps) end() {
	p.interrupt(errClosed)
	<-p.outEnded
	<-p.inEnded
	p.limit.stop()
	p.ch.close()
}
