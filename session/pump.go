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

// The pumps of a connection with a data channel are two goroutines. Each waits for one thing at a
// time, so a stuck peer or caller delays only its own direction.
//
//	out: channel ── take, at most 64 KiB ──▶ engine's Write, within the write timeout
//	in:  engine's ReadSome ──▶ channel, when the caller makes room
//
// An idle connection has two parked goroutines and no memory for bytes. The pumps end at the Close
// of the connection, or at the latest at the End of the session. Close and End first wait until the
// out pump has sent the caller's bytes (drain). Then they interrupt the pumps, and wait for the two
// goroutines. This wait is short, because interrupt() ends all waits of the pumps.

const (
	// inBytes is the most that is read from the peer at once.
	inBytes = 128 << 10
	// reasonTimeout is how long a failed send waits for the in pump to read why the peer has
	// ended the connection.
	reasonTimeout = time.Second
)

type pumps struct {
	c     *connection
	t     EngineConn
	ch    *channel
	limit *limiter // of the out pump's pieces

	ctx  context.Context // of both pumps
	stop context.CancelCauseFunc

	outReturned, inReturned chan struct{} // closed when the pump has returned
	sendingOver             chan struct{} // closed when no more bytes will be sent
	receivingOver           chan struct{} // closed when the in pump reads no more
	hadToSend               bool          // bytes or close_notify; valid after outReturned

	shutdownAsked atomic.Bool   // tls.Shutdown has come, so the out pump sends close_notify
	endSent       atomic.Bool   // set before the in pump shuts down its direction of ch
	decide        sync.Once     // closes the Go channel decided
	decided       chan struct{} // closed by Shutdown, Close or End (see closeWrite)
}

// attach starts the pumps of a connection in the state ready. s.mu must be held.
func (c *connection) attach(ch *channel) {
	p := &pumps{
		c: c, t: c.tls, ch: ch,
		outReturned: make(chan struct{}), inReturned: make(chan struct{}),
		sendingOver: make(chan struct{}), receivingOver: make(chan struct{}),
		decided: make(chan struct{}),
	}
	p.ctx, p.stop = context.WithCancelCause(context.Background())
	p.limit = newLimiter(p.ctx, c.writeTimeout())
	c.pumps = p
	go p.runOut()
	go p.runIn()
}

// runOut is the out pump.
func (p *pumps) runOut() {
	defer close(p.outReturned)
	again := p.forward()
	close(p.sendingOver)
	if again {
		<-p.decided
		p.closeWrite()
	}
}

// forward carries bytes until no more come, or until they cannot be sent. If the caller has closed
// the channel, the result is true. In this case a later call decides whether close_notify is sent.
func (p *pumps) forward() (callerClosed bool) {
	for {
		data, n, err := p.ch.take()
		if n == 0 {
			return p.channelEnded(err)
		}
		p.hadToSend = true
		ctx := p.limit.begin(n)
		err = p.write(ctx, data[:n])
		p.limit.end()
		pieces.Put(data)
		if err != nil {
			p.failOut(ctx, err)
			return false
		}
	}
}

// write carries a piece to the peer.
func (p *pumps) write(ctx context.Context, data []byte) error {
	n, err := p.t.Write(ctx, data)
	p.c.s.moved()
	p.c.flow.change(event{sent: n})
	return err
}

// channelEnded is called when the channel gives no more bytes. err is the error of take. If the
// caller has closed the channel, channelEnded does nothing but return true. If the caller has only
// shut down its sending direction, channelEnded sends close_notify. If an interrupt leaves bytes in
// the channel, or take has met another error, channelEnded fails the outgoing direction.
func (p *pumps) channelEnded(err error) (callerClosed bool) {
	switch {
	case interrupted(err):
		if p.ch.hasBytes() {
			p.failOut(p.ctx, context.Cause(p.ctx))
		}
	case err != nil && !callerGone(err):
		p.failOut(p.ctx, fail(kind.IO, "take bytes from the data channel: %v", err))
	case p.callerClosed():
		return true
	default:
		p.closeWrite()
	}
	return false
}

// closeWrite sends close_notify. It does nothing if the direction has failed. It also does nothing
// if Close or End has come without a Shutdown, because Close and End decide about close_notify
// themselves.
func (p *pumps) closeWrite() {
	select {
	case <-p.decided:
		if !p.shutdownAsked.Load() {
			return
		}
	default:
	}
	if !p.c.flow.canWrite() {
		return
	}
	ctx := p.limit.begin(0)
	err := p.t.CloseWrite(ctx)
	p.limit.end()
	if err != nil {
		p.failOut(ctx, err)
		return
	}
	p.c.flow.change(event{write: stateShut})
}

// shutDown makes the out pump send close_notify after the bytes that the caller has sent.
func (p *pumps) shutDown() {
	p.shutdownAsked.Store(true)
	p.decide.Do(func() { close(p.decided) })
	p.ch.fence()
}

// callerClosed says whether the caller has closed the channel. It returns false if the caller has
// only shut down its sending direction. After the in pump has shut down its own direction, the
// channel looks the same in both cases, and callerClosed returns false.
func (p *pumps) callerClosed() bool { return p.ch.callerClosed() && !p.endSent.Load() }

// failOut publishes why the outgoing direction has failed, and makes the caller's next send fail.
// If the network has failed, the peer may have said why. So failOut gives the in pump time to read
// the reason. ctx is the context of the operation that has failed.
func (p *pumps) failOut(ctx context.Context, err error) {
	p.hadToSend = true
	e := classify(ctx, err, kind.IO)
	if e.Kind == kind.IO {
		late := time.NewTimer(p.c.s.reasonTimeout)
		defer late.Stop()
		select {
		// If the in pump has met a fatal error, it has already published this error for
		// both directions. Then the call of change below changes nothing.
		case <-p.receivingOver:
		case <-late.C:
		case <-p.ctx.Done():
		}
	} else {
		e.Why += fmt.Sprintf("; %d bytes were sent before that", p.c.flow.status().Sent)
	}
	p.c.flow.change(event{write: stateFailed, err: e})
	p.ch.fence()
	p.ch.discard()
}

// runIn is the in pump. After the peer has ended its direction, runIn waits until the peer resets
// the connection, so that a caller that only writes notices the reset.
func (p *pumps) runIn() {
	defer close(p.inReturned)
	p.deliver()
	close(p.receivingOver)
	if st := p.c.flow.status(); st.Read == stateOpen || st.Write != stateOpen {
		return // the caller takes no more, or writing has ended
	}
	err := p.t.WaitReset(p.ctx)
	if err != nil && p.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		p.publish(event{write: stateFailed, err: classify(p.ctx, err, kind.IO)})
	}
}

// deliver gives the caller the bytes that the peer sends. It returns when reading has ended, or
// when the caller takes no more. It publishes the end of reading.
func (p *pumps) deliver() {
	for {
		data, err := p.t.ReadSome(p.ctx, inBytes)
		if err != nil {
			if e, ended := readEnd(p.ctx, err); ended {
				p.publish(e)
			}
			return
		}
		// Counted before the put, so that the caller never has more bytes than Status says.
		p.c.flow.change(event{received: len(data)})
		n, err := p.ch.put(data)
		p.c.s.moved()
		if n < len(data) {
			p.c.flow.change(event{received: n - len(data)})
		}
		openssl.Recycle(data)
		if err != nil {
			if !interrupted(err) && !callerGone(err) {
				e := fail(kind.IO, "pass bytes to the data channel: %v", err)
				p.publish(event{read: stateFailed, err: e})
			}
			return
		}
	}
}

// publish changes the flow. If this ends a direction of the connection, publish then shuts down the
// same direction of the channel.
func (p *pumps) publish(e event) {
	readEnded, writeEnded := p.c.flow.change(e)
	if readEnded {
		p.endSent.Store(true)
		p.ch.sendEnd()
	}
	if writeEnded {
		p.ch.fence()
	}
}

// readEnd says which directions the error of a read ends. If this side has ended the wait, the
// error ends no direction. If the peer has sent close_notify, or has ended its direction without
// it, only reading ends, because the peer may still read. Any other error fails both directions.
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

// drain makes the caller's next send fail, and sends the bytes that came before, each piece within
// the write timeout. drain gives up when ctx ends. But if ctx ends because the session ends, drain
// waits for up to Timeouts.Close more, and gives up only then.
func (p *pumps) drain(ctx context.Context) {
	s := p.c.s
	p.decide.Do(func() { close(p.decided) })
	p.ch.fence()
	select {
	case <-p.outReturned:
		return
	case <-ctx.Done():
	}
	why := context.Cause(ctx)
	if why == error(errEnded) {
		late, stop := context.WithTimeout(s.finishCtx, s.Timeouts.Close)
		defer stop()
		select {
		case <-p.outReturned:
			return
		case <-late.Done():
		}
	}
	p.interrupt(why)
	<-p.outReturned
}

// interrupt ends the waits of both pumps.
func (p *pumps) interrupt(why error) {
	p.decide.Do(func() { close(p.decided) })
	p.stop(why)
	p.ch.interrupt()
}

// terminate ends the pumps, waits for them, and closes the channel. Bytes that were not sent yet
// are lost.
func (p *pumps) terminate() {
	p.interrupt(errClosed)
	<-p.outReturned
	<-p.inReturned
	p.limit.stop()
	p.ch.close()
}
