package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
	"tlsd/internal/kind"
	"tlsd/internal/plain"
	"tlsd/rpc/wire"
)

const (
	// admitTimeout limits a caller's wait for a worker.
	admitTimeout = 30 * time.Second
	// refuseTimeout limits the write of a refusal. The buffer of a new connection has room, so
	// the timeout is only a safeguard.
	refuseTimeout = time.Second
)

// admit refuses a connection or hands it to a worker. It always closes conn: the worker has a copy,
// and so has the session (dupCaller).
func (s *Supervisor) admit(life context.Context, conn *net.UnixConn) {
	defer conn.Close()
	sess := s.sessionFor(conn)
	if sess == nil {
		s.endActive()
		return
	}
	log := s.peerLog(sess.peer)
	ctx, cancel := context.WithTimeout(life, admitTimeout)
	defer cancel()
	ctx, endWatch := untilHangup(ctx, conn)
	defer endWatch()
	if err := sess.dupCaller(conn); err != nil {
		// The session works without the copy.
		log.Warn("if the worker of this session dies, its caller will not learn the reason",
			zap.Uint64("session", sess.number), zap.Error(err))
	}
	err := s.waitPause(ctx, sess.peer.account())
	if err == nil {
		err = s.handOver(ctx, sess, conn)
	}
	switch {
	case err == nil:
		s.countStart(sess)
	case errors.Is(err, errHungUp):
		log.Info("a caller has hung up before its session began",
			zap.Uint64("session", sess.number))
		s.countRefusal(refusedLeft)
		s.closeSession(sess)
	default:
		log.Error("no worker for a session", zap.Uint64("session", sess.number),
			zap.Error(err))
		refuse(conn, kind.Internal,
			"tlsd has no worker process for this session: "+err.Error())
		s.countRefusal(refusedNoWorker)
		s.closeSession(sess)
	}
}

// sessionFor opens a session for the caller of a connection, or refuses the caller and returns nil.
func (s *Supervisor) sessionFor(conn *net.UnixConn) *session {
	peer, err := peerOf(conn)
	if err != nil {
		s.Log.Error("a caller is refused", zap.Error(err))
		refuse(conn, kind.Internal, err.Error())
		s.countRefusal(refusedFault)
		return nil
	}
	if err := s.Policy.Allows(peer); err != nil {
		as := systemAccountant.denied(peer)
		peer.as = &as
		event := audit.Event{Name: audit.Denied, Method: "connect", Asked: s.Socket.Path}
		s.writeAudit(peer, 0, &event, 0)
		refuse(conn, kind.Denied, err.Error())
		s.countRefusal(refusedDenied)
		return nil
	}
	if as := systemAccountant.allowed(s.Policy, peer); as != userAccount(peer.UID) {
		peer.as = &as
	}
	sess, err := s.openSession(peer)
	if err != nil {
		s.peerLog(peer).Warn("a caller is refused: the limit of sessions is reached",
			zap.Error(err))
		refuse(conn, kind.Limit, err.Error())
		s.countRefusal(refusedLimit)
		return nil
	}
	sess.policy = s.PolicyFor(peer.policyUser())
	return sess
}

// peerLog is the log for lines about a caller. A caller could cause thousands of lines, so the log
// limits their number.
func (s *Supervisor) peerLog(peer Peer) *zap.Logger {
	return s.limitedLog.With(zap.Uint32("uid", peer.UID), zap.Int32("pid", peer.PID))
}

// handOver hands the connection to a worker. If the worker dies before it has the session, handOver
// tries another worker. It tries three workers in all. If the session has ended already (unassign
// returns false), nothing is left to do, so handOver returns nil.
func (s *Supervisor) handOver(ctx context.Context, sess *session, conn *net.UnixConn) (err error) {
	for range 3 {
		w, failed := s.acquire(ctx, sess.peer)
		if failed != nil {
			if ctx.Err() != nil && err != nil {
				return fmt.Errorf("%w; before that, %w", failed, err)
			}
			if err = failed; ctx.Err() != nil {
				return err
			}
			continue
		}
		if s.assign(w, sess) {
			s.logStart(w, sess) // now, so that the end is logged after the start
			if err = w.sendSession(sess, conn); err == nil || !s.unassign(w, sess) {
				return nil
			}
		} else {
			err = fmt.Errorf("worker %d has ended before it had the session", w.pid)
		}
		s.release(w)
		s.retire(w)
		s.Log.Warn("a worker could not take a session",
			append(sess.fields(w), zap.Error(err))...)
	}
	return err
}

// refuse sends the caller one error. The error's id is null, because the supervisor reads nothing
// from the caller.
func refuse(conn *net.UnixConn, k kind.Kind, message string) {
	conn.SetWriteDeadline(time.Now().Add(refuseTimeout))
	_, _ = conn.Write(errorLine(k, message))
}

// errorLine is the line of the protocol for an error that belongs to no call.
func errorLine(k kind.Kind, message string) []byte {
	line, err := json.Marshal(wire.Response{
		JSONRPC: "2.0",
		Error: &wire.Error{Code: wire.Codes[k], Message: message,
			Data: &wire.ErrorData{Kind: k}},
	})
	if err != nil {
		panic(err) // impossible: the value has only strings and numbers
	}
	return append(line, '\n')
}

// openSession makes a session and counts it. It fails if there are too many sessions.
func (s *Supervisor) openSession(peer Peer) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions >= s.MaxSessions {
		return nil, fmt.Errorf("%d sessions are open, the limit of this tlsd "+
			"(--max-sessions); try again when some have ended", s.sessions)
	}
	if n := s.perUID[peer.account()]; s.MaxSessionsPerUID > 0 && n >= s.MaxSessionsPerUID {
		return nil, fmt.Errorf("%d sessions of %v are open, the limit for one user "+
			"(--max-sessions-per-uid); end some and try again", n, peer.account())
	}
	s.sessions++
	s.perUID[peer.account()]++
	s.last++
	return &session{
		number: s.last, peer: peer, start: time.Now(), gone: make(chan struct{}),
		callerFD: -1,
	}, nil
}

// closeSession undoes the counting of openSession and startAdmit, and closes the session's copy of
// the connection.
func (s *Supervisor) closeSession(sess *session) {
	s.mu.Lock()
	s.sessions--
	as := sess.peer.account()
	if s.perUID[as]--; s.perUID[as] == 0 {
		delete(s.perUID, as)
	}
	s.mu.Unlock()
	close(sess.gone)
	// A caller that sees the end may connect again at once. So the session must not be counted
	// any more when its connection is closed.
	sess.closeCaller()
	s.endActive()
}

// endActive undoes the counting of startAdmit: the connection is refused, or its session is over.
func (s *Supervisor) endActive() {
	s.mu.Lock()
	s.active--
	none := s.active == 0
	s.mu.Unlock()
	if none {
		wakeUp(s.idle)
	}
}

// sessionEnded handles a worker's report that a session is over.
func (s *Supervisor) sessionEnded(w *worker, e *handoff.Ended) {
	s.mu.Lock()
	sess := w.sessions[e.Number]
	delete(w.sessions, e.Number)
	if sess != nil {
		w.load--
		w.slots.put(sess.slot)
	}
	own, drained := w.single, w.drained()
	s.mu.Unlock()
	if sess == nil {
		s.limitedLog.Warn("worker ends a session that it does not have",
			zap.Int("worker", w.pid), zap.Uint64("session", e.Number))
		return
	}
	if e.NotTaken {
		sess.sendLine(errorLine(kind.Limit,
			"the process that was to serve this session has no descriptor free "+
				"(RLIMIT_NOFILE); try again when other sessions have closed "+
				"connections"))
	}
	s.countEnd(sess, e)
	s.closeSession(sess) // at once: the supervisor's copy must not keep the connection open
	fields := append(sess.fields(w), zap.Duration("duration", time.Since(sess.start)))
	if t := e.Totals; t != nil {
		fields = append(fields, zap.Int("handles", max(t.Handles, 0)),
			zap.Int64("received", max(t.Received, 0)),
			zap.Int64("sent", max(t.Sent, 0)))
	}
	if e.Error != "" {
		fields = append(fields, zap.String("why", plain.Text(e.Error, longestReason)))
	}
	if own {
		s.endStreak(sess.peer.account())
	}
	s.logEnd(sess, fields)
	if own || drained {
		s.retire(w)
	}
}

func (sess *session) fields(w *worker) []zap.Field {
	return []zap.Field{
		zap.Uint64("session", sess.number), zap.Uint32("uid", sess.peer.UID),
		zap.Int32("pid", sess.peer.PID), zap.Int("worker", w.pid),
	}
}

// wakeUp wakes a goroutine that waits on c. If none waits, the next wait ends at once. c has a
// capacity of 1.
func wakeUp(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
