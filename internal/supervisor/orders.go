package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tlsd/internal/admin"
	"tlsd/internal/handoff"
	"tlsd/internal/kind"
	"tlsd/internal/plain"
)

// This file carries out the administrator's orders (see package admin). The supervisor sends an
// order with TrySend, which never waits. So a worker that does not read delays only its own
// sessions.

// End orders the worker to end a session, and returns when the session is gone. The worker tells
// the caller the reason. If ctx ends while End waits for the worker, End fails.
//
// End uses force if the order cannot be sent, or if the worker does not obey within endTimeout. If
// the worker serves only this session, End kills the worker. If the worker can have more sessions,
// End only shuts down the connection of this session's caller.
func (s *Supervisor) End(ctx context.Context, number uint64, reason string) error {
	w, sess := s.find(number)
	if sess == nil {
		return noSession(number)
	}
	reason = plain.Text(reason, admin.MaxReason)
	began := time.Now()
	s.mu.Lock()
	sess.ordered = true
	s.mu.Unlock()
	if w.channel.TrySend(handoff.ToWorker{End: &handoff.End{Number: number,
		Reason: reason}}) == nil {
		switch err := awaitGone(ctx, sess); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return err
		}
	}
	s.Log.Warn("a worker does not obey the order to end a session",
		append(sess.fields(w), zap.Duration("after", time.Since(began)))...)
	s.mu.Lock()
	own := w.single
	if own && w.sessions != nil {
		w.ending = true // so that the death costs the user no pause
		w.deathCause = byAdministrator
		w.killReason = "has been killed, because the administrator has ended " +
			"this session: " + reason
	}
	s.mu.Unlock()
	if own {
		w.kill()
	} else {
		sess.shutCaller()
	}
	if err := awaitGone(ctx, sess); err != nil {
		return admin.Fail(kind.Timeout,
			"session %d: its connection is cut, but worker %d does not end the session",
			number, w.pid)
	}
	return nil
}

func noSession(number uint64) error {
	return admin.Fail(kind.Params,
		"there is no session %d; tlsshim sessions lists the sessions", number)
}

// awaitGone waits for a session's end, within endTimeout.
func awaitGone(ctx context.Context, sess *session) error {
	late := time.NewTimer(endTimeout)
	defer late.Stop()
	select {
	case <-sess.gone:
		return nil
	case <-late.C:
		return errors.New("it has not ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// find returns a session and its worker.
func (s *Supervisor) find(number uint64) (*worker, *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.workers {
		if sess := w.sessions[number]; sess != nil {
			return w, sess
		}
	}
	return nil, nil
}

// SetLogLevel sets the log level of all workers, and of the workers that start later. The entries
// of workers must also pass the supervisor's own level.
func (s *Supervisor) SetLogLevel(level string) {
	// Two calls at once must not leave some workers with one level and some with the other.
	s.levels.Lock()
	defer s.levels.Unlock()
	s.mu.Lock()
	s.logLevel = level
	s.mu.Unlock()
	s.eachWorker(func(w *worker) {
		select {
		case <-w.engaged:
			// A worker whose channel is full keeps its level.
			_ = w.channel.TrySend(handoff.ToWorker{LogLevel: level})
		default: // engage() will send the level
		}
	})
}

// level returns the log level that the newest call of SetLogLevel has set, or "" if there was no
// call.
func (s *Supervisor) level() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logLevel
}

// Health reports the daemon's state and its problems.
func (s *Supervisor) Health() admin.Health {
	hangs := s.forking.hangs()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := admin.Health{
		Library: s.library, Sessions: s.sessions, MaxSessions: s.MaxSessions,
		Workers: s.states(), Uptime: time.Since(s.started).Seconds(),
	}
	problem := func(is bool, format string, args ...any) {
		if is {
			h.Problems = append(h.Problems, fmt.Sprintf(format, args...))
		}
	}
	problem(s.stopping, "tlsd is stopping, and lets sessions finish")
	problem(s.library == "" && s.Warm > 0, "no worker has reported yet")
	problem(s.stub, "no usable OpenSSL: every TLS call fails")
	problem(s.failures > 1, "workers die as soon as they are started, %d in a row", s.failures)
	problem(s.sessions >= s.MaxSessions,
		"there are as many sessions as allowed (--max-sessions)")
	problem(hangs, "the start of a process hangs")
	h.Healthy = len(h.Problems) == 0
	return h
}

// The states of workers. A worker loads the library only after it is engaged, and is "starting"
// until it is ready. A worker for the daemon's own user is engaged at once. So it is "starting",
// and then "spare". A worker for other users is first "spare". It is engaged when a user's session
// needs it, and then it is "starting".
var workerStates = []string{"starting", "spare", "serving", "ending"}

// states counts the workers by their state. The caller holds s.mu.
func (s *Supervisor) states() map[string]int {
	n := map[string]int{}
	for _, state := range workerStates {
		n[state] = 0
	}
	for w := range s.workers {
		switch {
		case w.ending || w.sessions == nil || w.killReason != "":
			n["ending"]++
		case len(w.sessions) > 0:
			n["serving"]++
		case w.isReady() || !isClosed(w.engaged):
			n["spare"]++
		default:
			n["starting"]++
		}
	}
	return n
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
