package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"tlsd/internal/admin"
	"tlsd/internal/handoff"
	"tlsd/internal/plain"
)

// What the administrator sees of sessions (see package admin). What the supervisor does not know,
// it asks the worker for, and only then: a worker that nobody asks reports nothing.
//
//   - There is at most one question about a session at a time. Several administrators share it.
//   - Who asks waits for answerTime at most, for all workers together. A worker that has not
//     answered by then is shown without.
//   - What a worker says is bounded and cleaned. An answer that nobody has asked for breaks the
//     rules of the channel.

// answerTime bounds the wait for what workers say.
const answerTime = 2 * time.Second

// An ask is a question about a session to its worker.
type ask struct {
	done   chan struct{}
	answer handoff.Described // when done; guarded by that
}

// shown is a session with what is to be shown of it, as it was under the supervisor's lock.
type shown struct {
	admin.Session
	w     *worker
	ask   *ask
	fresh bool // the question is still to be sent
}

// Sessions lists the sessions that workers have.
func (s *Supervisor) Sessions(ctx context.Context) []admin.Session {
	return s.show(ctx, func(*session) bool { return true })
}

// Session shows one.
func (s *Supervisor) Session(ctx context.Context, number uint64) (admin.Session, error) {
	list := s.show(ctx, func(sess *session) bool { return sess.number == number })
	if len(list) == 0 {
		return admin.Session{}, noSession(number)
	}
	return list[0], nil
}

func (s *Supervisor) show(ctx context.Context, wanted func(*session) bool) []admin.Session {
	all := s.question(wanted)
	for _, v := range all {
		if v.fresh {
			s.ask(v)
		}
	}
	slices.SortFunc(all, func(a, b shown) int { return cmp.Compare(a.Number, b.Number) })
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	list := []admin.Session{}
	for _, v := range all {
		v.Program = programOf(v.PID)
		select {
		case <-v.ask.done:
		case <-v.w.gone:
		case <-ctx.Done():
		}
		if isClosed(v.ask.done) {
			v.take(v.ask.answer)
		}
		list = append(list, v.Session)
	}
	return list
}

// question notes the sessions and what their workers are to be asked.
func (s *Supervisor) question(wanted func(*session) bool) []shown {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []shown
	for w := range s.workers {
		for _, sess := range w.sessions {
			if !wanted(sess) {
				continue
			}
			v := shown{Session: admin.Session{
				Number: sess.number, UID: sess.peer.UID, PID: sess.peer.PID,
				Worker: w.pid,
				Age:    time.Since(sess.start).Seconds(), Handles: []admin.Handle{},
			}}
			if place, err := w.page.Session(sess.place); err == nil {
				method, handle := place.InFlight()
				if v.Waits = method; method != "" && handle > 0 {
					v.Waits = fmt.Sprintf("%s %d", method, handle)
				}
			}
			v.w, v.ask = w, w.asks[sess.number]
			if v.fresh = v.ask == nil; v.fresh {
				v.ask = &ask{done: make(chan struct{})}
				w.asks[sess.number] = v.ask
			}
			all = append(all, v)
		}
	}
	return all
}

// ask sends a question. A worker that has no room for it may be asked again.
func (s *Supervisor) ask(v shown) {
	if v.w.channel.TrySend(handoff.ToWorker{Describe: v.Number}) == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.w.asks[v.Number] == v.ask {
		delete(v.w.asks, v.Number)
	}
}

// answered takes a worker's answer. It says whether there was a question.
func (s *Supervisor) answered(w *worker, d *handoff.Described) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := w.asks[d.Number]
	if a == nil {
		return false
	}
	delete(w.asks, d.Number)
	a.answer = d.Clean()
	close(a.done)
	return true
}

// take adds what the worker says.
func (v *shown) take(d handoff.Described) {
	if d.Gone {
		return
	}
	v.Known = true
	v.Connections, v.Contexts, v.Calls = d.Connections, d.Contexts, d.Calls
	v.Received, v.Sent = d.Received, d.Sent
	for _, h := range d.Handles {
		v.Handles = append(v.Handles, admin.Handle{
			Handle: h.Handle, Kind: h.Kind, State: h.State, Peer: h.Peer,
			Received: h.Received, Sent: h.Sent,
		})
	}
}

// programOf names the program of a process, as it calls itself. Of a caller that is gone, the pid
// may be another's by now.
func programOf(pid int32) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // "" for a process that is gone
	return plain.Text(strings.TrimSuffix(string(text), "\n"), 64)
}
