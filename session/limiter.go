package session

import (
	"context"
	"sync"
	"time"

	"tlsd/internal/kind"
)

// A limiter limits the time of pieces of work that come one after another. When a piece takes too
// long, the limiter ends the piece's context, with an error of kind "timeout" as the cause. To set
// a timer for each piece would be slow, and most pieces end long before their deadline. So one
// timer serves many pieces: the end of a piece does not stop the timer. If the timer fires before
// the deadline of the running piece, the limiter arms the timer again.
type limiter struct {
	parent context.Context

	mu       sync.Mutex // guards the rest
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timeout  time.Duration // 0: none
	size     int           // bytes of the piece; 0: close_notify
	running  bool          // between begin and end
	deadline time.Time     // when the piece must have ended; zero: never
	timer    *time.Timer   // nil before the first piece with a timeout
	armed    bool          // the timer runs
	firesAt  time.Time     // when the running timer fires
}

func newLimiter(parent context.Context, timeout time.Duration) *limiter {
	l := &limiter{parent: parent, timeout: timeout}
	l.ctx, l.cancel = context.WithCancelCause(parent)
	return l
}

// set changes the timeout. If a piece runs, its time begins anew, with the new timeout.
func (l *limiter) set(timeout time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = timeout
	if l.running {
		l.start()
	}
}

// begin begins a piece, and returns its context.
func (l *limiter) begin(size int) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		l.ctx, l.cancel = context.WithCancelCause(l.parent)
	}
	l.running, l.size = true, size
	l.start()
	return l.ctx
}

// end ends the piece.
func (l *limiter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
}

// start sets the deadline, counted from now. l.mu must be held.
func (l *limiter) start() {
	if l.timeout == 0 {
		l.deadline = time.Time{}
		return
	}
	l.deadline = time.Now().Add(l.timeout)
	if !l.armed || l.deadline.Before(l.firesAt) {
		l.arm(l.timeout)
	}
}

// arm makes the timer fire after d. l.mu must be held.
func (l *limiter) arm(d time.Duration) {
	l.armed, l.firesAt = true, l.deadline
	if l.timer == nil {
		l.timer = time.AfterFunc(d, l.fire)
	} else {
		l.timer.Reset(d)
	}
}

func (l *limiter) fire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	if !l.running || l.deadline.IsZero() {
		return
	}
	if left := time.Until(l.deadline); left > 0 {
		l.arm(left)
		return
	}
	l.cancel(notTaken(l.size, l.timeout))
}

// stop frees the limiter.
func (l *limiter) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
	if l.timer != nil {
		l.timer.Stop()
	}
	l.cancel(nil)
}

// pending is the size of the piece that runs, or 0.
func (l *limiter) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.running {
		return 0
	}
	return l.size
}

// notTaken makes the error for a peer that does not take bytes in time. If size is 0, the peer does
// not take close_notify.
func notTaken(size int, timeout time.Duration) *Error {
	if size == 0 {
		return fail(kind.Timeout, "the peer has not taken close_notify within %v", timeout)
	}
	return fail(kind.Timeout, "the peer has not taken %d bytes within %v", size, timeout)
}
