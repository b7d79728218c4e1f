package session

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"tlsd/internal/kind"
)

// turnGrace is how long a call that takes its turn behind others (Close,
// CloseServerContext, LastError) waits while none of them ends.
const stallTimeout = 500 * time.Millisecond

// A Call is an operation that has been made, has taken its place in the
// session's order, and is ready to run. The methods of Session that return a
// Call never wait; they must be called from one goroutine, in the order of the
// caller's requests. Each Call must be Run exactly once, from any goroutine.
//
// A connection has three lanes: control (the making call, Handshake, SetTimeout,
// SetInsecureSkipVerify, PeerCertSubject, Version), in (Read) and out (Write). Calls of one lane
// run one after another; Read and Write also wait for the control calls that were made before them.
// Close waits its turn behind all of them, for as long as one of them ends every turnGrace, and
// then ends the rest. Calls that wait for bytes of a data channel to leave (Flush, Shutdown) it
// does not end: it drains the channel, which ends them.
type Call struct {
	s      *Session
	op     string
	handle Handle // the handle that the caller named; 0 if none
	makes  Handle // the handle that the call makes; 0 if none
	seq    uint64 // place in the session's order

	ctx    context.Context // done when the call is to end early; its cause says why
	cancel context.CancelCauseFunc

	after []<-chan struct{} // calls that must have ended before this one runs
	done  chan struct{}     // closed when this call and all of after have ended
	tail  *<-chan struct{}  // the lane whose tail is done, until another call is; nil: none
	run   func(context.Context) (any, error)
	waits bool // run may have to wait

	data *net.UnixConn   // the data channel that came with the call, until it is attached
	pair []*net.UnixConn // of a Signal, until it is in use

	onAbandon func() // if not nil, called instead of run when the call ends before its turn
	// bound, if not nil, bounds the wait for the last of after, and run.
	startTimeout func(context.Context) (context.Context, context.CancelFunc)
}

// newCall registers a call. s.mu must be held.
func (s *Session) newCall(op string, h Handle, run func(context.Context) (any, error)) *Call {
	s.seq++
	c := &Call{s: s, op: op, handle: h, seq: s.seq, run: run, waits: true, done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(s.ctx)
	s.calls[c] = struct{}{}
	s.running.Add(1)
	return c
}

// refuse makes a call that fails. s.mu must be held.
func (s *Session) refuse(op string, h Handle, err *Error) *Call {
	c := s.newCall(op, h, func(context.Context) (any, error) { return nil, err })
	c.waits = false
	return c
}

// Waits reports whether Run may have to wait, for the network or for calls
// that were made earlier.
func (c *Call) Waits() bool {
	if c.waits {
		return true
	}
	for _, ch := range c.after {
		select {
		case <-ch:
		default:
			return true
		}
	}
	return false
}

// Cancel ends the call with kind "cancelled", wherever it waits, unless it has
// ended. It may be called at any time, more than once.
func (c *Call) Cancel() { c.cancel(errCancelled) }

// Run waits for the call's turn, carries it out and returns its result: a
// Handle, an int, a string, a Status, or a []byte that the caller owns. An error is always
// an *Error, and has become the session's last error.
func (c *Call) Run() (any, error) {
	v, err := c.perform()
	var e *Error
	if err != nil {
		e = c.annotate(err)
	}
	c.complete(e)
	if e != nil {
		return nil, e
	}
	return v, nil
}

func (c *Call) perform() (any, error) {
	ctx := c.ctx
	for i, ch := range c.after {
		if c.startTimeout != nil && i == len(c.after)-1 {
			var stop context.CancelFunc
			ctx, stop = c.startTimeout(ctx)
			defer stop()
		}
		select {
		case <-ch:
		case <-ctx.Done():
		}
		// Also if both has happened; and the session's end may have reached the
		// call before, but not yet this one.
		if why := cmp.Or(context.Cause(ctx), context.Cause(c.s.ctx)); why != nil {
			if c.onAbandon != nil {
				c.onAbandon()
			}
			return nil, why
		}
	}
	return c.run(ctx)
}

// describe completes an error with the call's name and handle.
func (c *Call) annotate(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = fail(kind.Internal, "%v", err)
	}
	d := *e
	d.Op, d.Handle = c.op, c.handle
	return &d
}

// channel checks the data channel that came with the call. It is nil if none came.
func (c *Call) channel() (*channel, error) {
	if c.data == nil {
		return nil, nil
	}
	ch, err := newChannel(c.data)
	if err != nil {
		return nil, err
	}
	return ch, nil
}

// end takes the call out of the session's order.
func (c *Call) complete(err *Error) {
	c.cancel(nil)
	if c.data != nil {
		closeChannel(c.data)
	}
	for _, end := range c.pair {
		closeChannel(end)
	}
	s := c.s
	s.mu.Lock()
	if err != nil {
		s.lastError = err.Error()
	}
	delete(s.calls, c)
	s.notify()
	s.mu.Unlock()

	// Who waits for this call waits for its predecessors too, even if this one
	// was cancelled before its turn.
	for _, ch := range c.after {
		select {
		case <-ch:
			continue
		default:
		}
		go func() {
			for _, ch := range c.after {
				<-ch
			}
			c.unblockLater()
		}()
		return
	}
	c.unblockLater()
}

// leave makes way for the calls behind it.
func (c *Call) unblockLater() {
	s := c.s
	defer s.running.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.tail != nil && *c.tail == c.done {
		*c.tail = closedChan // an idle connection is not to keep a channel of its own for each lane
	}
	close(c.done)
	s.notify()
}

// turn waits until the calls that were made before c, on handle h or on any
// if h is 0, have ended; or until none of them has ended for turnGrace; or ctx is done.
func (c *Call) awaitEarlier(ctx context.Context, h Handle) {
	s := c.s
	var timer *time.Timer
	last := -1
	for {
		s.mu.Lock()
		n := len(s.earlier(c, h))
		var ended <-chan struct{}
		if n > 0 {
			ended = s.nextChange()
		}
		s.mu.Unlock()
		if n == 0 {
			return
		}
		if timer == nil {
			timer = time.NewTimer(s.stallTimeout)
			defer timer.Stop()
		}
		if n != last {
			timer.Reset(s.stallTimeout)
			last = n
		}
		select {
		case <-ended:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// closeInTurn makes the call that closes a handle: when its turn has come, it ends the calls that
// go on waiting. unmade says, under s.mu, whether the handle has never come to be. s.mu must be
// held.
func (s *Session) closeAfterEarlier(op string, h Handle, closeHandle func(context.Context) error, neverMade func() bool) *Call {
	var c *Call
	c = s.newCall(op, h, func(ctx context.Context) (any, error) {
		c.awaitEarlier(ctx, h)
		c.cancelEarlier(h)
		s.mu.Lock()
		never := neverMade()
		s.mu.Unlock()
		if never {
			return nil, fail(kind.Handle, "the call that was to make it failed")
		}
		if err := closeHandle(ctx); err != nil {
			return nil, err
		}
		return 0, nil
	})
	return c
}

// endWaiting ends the calls on handle h that were made before c, and waits until they have ended.
func (c *Call) cancelEarlier(h Handle) {
	s := c.s
	s.mu.Lock()
	waiting := s.earlier(c, h)
	s.mu.Unlock()
	// The last first: a call that waits for another one is to end for the same
	// reason, and not because that one has failed.
	slices.SortFunc(waiting, func(a, b *Call) int { return cmp.Compare(b.seq, a.seq) })
	for _, w := range waiting {
		w.cancel(errClosed)
	}
	for _, w := range waiting {
		<-w.done
	}
}

// earlier lists the calls on handle h (any if 0) that were made before c and have not ended, but
// for those that the pumps of h will end. s.mu must be held.
func (s *Session) earlier(c *Call, h Handle) []*Call {
	var list []*Call
	pumped := h != 0 && s.conns[h] != nil && s.conns[h].pumps != nil
	for o := range s.calls {
		if o.seq < c.seq && (h == 0 || o.concerns(h)) && !(pumped && (o.op == opFlush || o.op == opShutdown)) {
			list = append(list, o)
		}
	}
	return list
}

func (c *Call) concerns(h Handle) bool { return c.handle == h || c.makes == h }
