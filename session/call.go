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

// stallTimeout limits the wait of Close, CloseServerContext and LastError for earlier calls. It
// starts anew each time an earlier call ends. The wait ends when no call has ended for
// stallTimeout.
const stallTimeout = 500 * time.Millisecond

// A Call is one request of the caller. The methods of Session that return a Call give it its place
// in the session's order. These methods never wait. One goroutine must call them, in the order of
// the caller's requests. Then call Run exactly once for each Call, on any goroutine.
//
// A connection has three lanes: control, read and write. Calls of one lane run one after another.
//
//   - The control lane begins with the call that makes the connection (NewClient or Accept). It has
//     Handshake, SetTimeout, SetOption, Version and all other calls that are not named below.
//   - The read lane has Reads, and the write lane has Writes and Shutdowns. The calls of both lanes
//     also wait for earlier control calls.
//   - Flush waits for the write lane, and Status and Info wait for the control lane. No lane waits
//     for them.
//   - Close waits for all earlier calls on the handle. If none of them ends within stallTimeout,
//     Close cancels those that still wait.
//   - On a connection with a data channel, Close does not wait for a Flush or a Shutdown, and does
//     not cancel them. They end by themselves, because Close sends all bytes of the channel to the
//     peer.
type Call struct {
	s      *Session
	op     string
	handle Handle // the handle in the caller's request; 0 if none
	makes  Handle // the handle that the call makes; 0 if none
	seq    uint64 // number in the session's order

	ctx    context.Context // done when the call must end early; its cause says why
	cancel context.CancelCauseFunc

	after []<-chan struct{} // the field done of each call that must have ended before run
	done  chan struct{}     // closed when this call and those of the list "after" have ended
	// tail points to the variable of the call's lane. The variable is the field done of the
	// newest call of the lane. If tail is nil, the call is in no lane.
	tail  *<-chan struct{}
	run   func(context.Context) (any, error)
	waits bool // the function run may wait

	data *net.UnixConn   // the data channel that came with the call, until it is attached
	pair []*net.UnixConn // the sockets that came with a Signal, until they are in use

	// If the call is cancelled before run is called, onAbandon is called instead. It may be
	// nil.
	onAbandon func()
	// startTimeout starts the timeout of a Read. It is called before the wait for the last
	// element of "after", which is the earlier Read. So the timeout covers this wait, too. For
	// all other calls it is nil: run starts the timeout, or the call has none.
	startTimeout func(context.Context) (context.Context, context.CancelFunc)
}

// newCall registers a call. s.mu must be held.
func (s *Session) newCall(op string, h Handle, run func(context.Context) (any, error)) *Call {
	s.seq++
	c := &Call{s: s, op: op, handle: h, seq: s.seq, run: run, waits: true,
		done: make(chan struct{})}
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

// Waits reports whether Run may wait, for the network or for earlier calls.
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

// Cancel ends the call with kind "cancelled", wherever the call waits. It does nothing if the call
// has ended. It may be called at any time, more than once.
func (c *Call) Cancel() { c.cancel(errCancelled) }

// Run waits for the earlier calls, carries the call out, and returns its result. The result is a
// Handle, an int, a string, a Status, Facts, or a []byte, which then belongs to the caller of Run.
// An error is always an *Error. Before Run returns it, Run makes it the session's last error.
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
		// A call that is cancelled, or whose session has ended, must not run. The select
		// may have chosen ch although ctx has ended too, so look at ctx in both cases. When
		// the session ends, its context ends a moment before ctx, so look at both contexts.
		if why := cmp.Or(context.Cause(ctx), context.Cause(c.s.ctx)); why != nil {
			if c.onAbandon != nil {
				c.onAbandon()
			}
			return nil, why
		}
	}
	return c.run(ctx)
}

// annotate adds the call's name and handle to an error.
func (c *Call) annotate(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = fail(kind.Internal, "%v", err)
	}
	d := *e
	d.Op, d.Handle = c.op, c.handle
	return &d
}

// channel checks the data channel that came with the call. It returns nil if none came.
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

// complete ends the call. It closes the sockets that came with the call and are not in use, and
// stores the call's error as the session's last error. When all calls of the list "after" have
// ended, too, it lets the later calls run that wait for this call.
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

	// If this call was cancelled, calls of the list "after" may still run. A call that waits
	// for this one must wait for them, too. So done is closed only when all of them have ended.
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

// unblockLater closes done. So the later calls that wait for this call can run.
func (c *Call) unblockLater() {
	s := c.s
	defer s.running.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.tail != nil && *c.tail == c.done {
		// closedChan replaces done, so that an idle connection keeps no Go channel of its
		// own for each lane.
		*c.tail = closedChan
	}
	close(c.done)
	s.notify()
}

// awaitEarlier waits for the calls that were made before c: those on handle h, or all if h is 0. It
// returns when they have ended, when none of them ends within stallTimeout, or when ctx is done.
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

// closeAfterEarlier makes the call that closes a handle. The call waits for earlier calls, and then
// cancels those that still wait (see stallTimeout). If the call that was to make the handle has
// failed, neverMade() must return true. s.mu is held while neverMade() runs. The caller of
// closeAfterEarlier must hold s.mu, too.
func (s *Session) closeAfterEarlier(op string, h Handle,
	closeHandle func(context.Context) error, neverMade func() bool) *Call {
	var c *Call
	c = s.newCall(op, h, func(ctx context.Context) (any, error) {
		c.awaitEarlier(ctx, h)
		c.cancelEarlier(h)
		s.mu.Lock()
		never := neverMade()
		s.mu.Unlock()
		if never {
			return nil, fail(kind.Handle, neverMadeText)
		}
		if err := closeHandle(ctx); err != nil {
			return nil, err
		}
		return 0, nil
	})
	return c
}

// cancelEarlier cancels the calls on handle h that were made before c, and waits until they have
// ended.
func (c *Call) cancelEarlier(h Handle) {
	s := c.s
	s.mu.Lock()
	waiting := s.earlier(c, h)
	s.mu.Unlock()
	// Cancel the newest call first. If an older call ended first, a newer call that waits for
	// it could run, and fail for another reason than the Close.
	slices.SortFunc(waiting, func(a, b *Call) int { return cmp.Compare(b.seq, a.seq) })
	for _, w := range waiting {
		w.cancel(errClosed)
	}
	for _, w := range waiting {
		<-w.done
	}
}

// earlier lists the calls on handle h that were made before c and have not ended. If h is 0, it
// lists the calls on all handles. If h has a data channel, the list has no Flush and no Shutdown
// (see Call). s.mu must be held.
func (s *Session) earlier(c *Call, h Handle) []*Call {
	var list []*Call
	pumped := h != 0 && s.conns[h] != nil && s.conns[h].pumps != nil
	for o := range s.calls {
		if o.seq < c.seq && (h == 0 || o.concerns(h)) &&
			!(pumped && (o.op == opFlush || o.op == opShutdown)) {
			list = append(list, o)
		}
	}
	return list
}

func (c *Call) concerns(h Handle) bool { return c.handle == h || c.makes == h }
