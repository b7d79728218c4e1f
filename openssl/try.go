package openssl

import (
	"context"
	"errors"
	"net"
	"time"
)

// ErrWouldBlock is returned by TryRead and TryWrite if they would have to wait.
var ErrWouldBlock = errors.New("the operation would have to wait")

// TryRead is Read for a caller that must not wait: it gives what is there, or
// fails with ErrWouldBlock. Nothing is lost by that.
func (c *Conn) TryRead(p []byte) (int, error) {
	return c.try(c.reading, opRead, p)
}

// TryWrite is Write for a caller that must not wait: it sends what the system takes at
// once. If that is not all of p, it fails with ErrWouldBlock, and the caller
// owes the rest, p[n:], to the next Write. If that Write fails, or another one
// comes before it, the outgoing stream is broken (ErrWriteBroken).
func (c *Conn) TryWrite(p []byte) (n int, err error) {
	return c.try(c.writing, opWrite, p)
}

func (c *Conn) try(s sem, kind opKind, p []byte) (int, error) {
	if err := c.enterReady(); err != nil {
		return 0, err
	}
	defer c.leave()
	if len(p) == 0 {
		return 0, nil
	}
	if !s.tryLock() {
		return 0, ErrWouldBlock
	}
	defer s.unlock()
	select {
	case <-c.done:
		return 0, net.ErrClosed
	default:
	}
	o := c.op()
	defer o.giveBack()
	return o.runNow(kind, p)
}

// runNow does as much of an operation as is possible without waiting. Since it
// never waits, RawConn.Control will do: it keeps the descriptor open, too.
func (o *op) runNow(kind opKind, p []byte) (int, error) {
	o.prepare(context.Background(), kind, p)
	o.blocked = false
	err := o.c.raw.Control(o.nowFn)
	if err == nil {
		err = o.err
	}
	if o.blocked {
		err = ErrWouldBlock
	}
	return o.conclude(kind, p, err)
}

// patience is for how long a TryWrite waits, once, for a peer that reads: one that does makes room sooner, as a rule, and then
// nothing has to be copied and come back to. For a peer in front of which it has waited in vain, there is none until a
// TryWrite has gone through without.
const patience = 2 * time.Millisecond

// now is the function that RawConn.Control calls.
func (o *op) now(fd uintptr) {
	waited := false
	for !o.finished && !o.blocked {
		want, idle := o.once()
		switch {
		case !idle:
		case o.kind == opWrite && want == writable && !waited && !o.c.unwilling:
			waited = true
			o.c.unwilling = !readyWithin(fd, writable, patience)
			o.blocked = o.c.unwilling
		default:
			o.blocked = true
		}
	}
	if o.kind == opWrite && !waited && !o.blocked {
		o.c.unwilling = false
	}
}
