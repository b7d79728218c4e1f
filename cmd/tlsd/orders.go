package main

import (
	"context"
	"sync"

	"tlsd/internal/handoff"
	"tlsd/session"
)

// The supervisor sends a worker pings, and an administrator's questions and orders. This file
// carries out these messages. The goroutine that receives messages calls carryOut, so nothing here
// may wait for a session.

// orderedEnd is the error of a session that an administrator has ended.
type orderedEnd struct{ reason string }

func (e *orderedEnd) Error() string {
	return "the administrator has ended this session: " + e.reason
}

// A liveSession is a session that the worker serves.
type liveSession struct {
	end  context.CancelCauseFunc
	sess *session.Session // nil until the session has begun
}

// liveSessions are the sessions that this worker serves.
type liveSessions struct {
	mu       sync.Mutex // guards all below
	byNumber map[uint64]*liveSession
}

// add adds a session, and returns two functions. When the session has begun, the caller must call
// began(). When the session has ended, the caller must call over().
func (l *liveSessions) add(number uint64, end context.CancelCauseFunc) (
	began func(*session.Session), over func()) {
	live := &liveSession{end: end}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byNumber == nil {
		l.byNumber = map[uint64]*liveSession{}
	}
	l.byNumber[number] = live
	began = func(s *session.Session) {
		l.mu.Lock()
		defer l.mu.Unlock()
		live.sess = s
	}
	over = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.byNumber, number)
	}
	return began, over
}

// end ends a session, if this worker still serves it.
func (l *liveSessions) end(order handoff.End) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if live := l.byNumber[order.Number]; live != nil {
		live.end(&orderedEnd{order.Reason})
	}
}

// describe describes a session.
func (l *liveSessions) describe(number uint64) handoff.Described {
	l.mu.Lock()
	defer l.mu.Unlock()
	live := l.byNumber[number]
	if live == nil || live.sess == nil {
		return handoff.Described{Number: number, Gone: live == nil}
	}
	o := live.sess.Describe(handoff.MostHandles)
	d := handoff.Described{
		Number: number, Connections: o.Connections, Contexts: o.Contexts,
		Received: o.Received, Sent: o.Sent, Calls: o.Calls,
	}
	for _, h := range o.Handles {
		d.Handles = append(d.Handles, handoff.Handle{
			Handle: int32(h.Handle), Kind: h.Kind, State: h.State, Peer: h.Peer,
			Received: h.Received, Sent: h.Sent,
		})
	}
	return d.Clean()
}

// carryOut carries out a message that hands over no session. It returns false if it does not know
// the message.
func (w *workerProcess) carryOut(msg *handoff.ToWorker) bool {
	switch {
	case msg.Ping != 0:
		w.sendMessage(handoff.FromWorker{Pong: msg.Ping})
	case msg.Describe != 0:
		d := w.live.describe(msg.Describe)
		w.sendMessage(handoff.FromWorker{Described: &d})
	case msg.End != nil:
		w.live.end(*msg.End)
	case msg.LogLevel != "":
		w.level.SetLevel(levelOf(msg.LogLevel))
	default:
		return false
	}
	return true
}
