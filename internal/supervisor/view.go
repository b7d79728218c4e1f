package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/admin"
	"tlsd/internal/handoff"
	"tlsd/internal/plain"
)

// This file shows sessions to the administrator (see package admin). The supervisor asks the worker
// for the facts that only the worker knows. The rules:
//
//   - A worker describes a session only if it is asked.
//   - At most one question about a session is open at a time. All administrators who ask meanwhile
//     share the answer.
//   - An administrator waits at most answerTime for all workers together. If a worker has not
//     answered by then, its sessions lack the worker's part.
//   - The supervisor limits and cleans a worker's answer (Described.Clean). A worker that answers
//     without a question breaks the rules of the channel.
//   - A question waits for room in a worker's channel, at most for answerTime. Each worker's
//     questions have a goroutine of their own. So a worker that does not read delays only its own
//     sessions.
//   - A list of sessions has only a few handles of each session. Otherwise a user with many handles
//     could make the list longer than one message of the admin socket may be.

// answerTime limits the wait for workers' answers. Tests may set Supervisor.answerTime.
const answerTime = 2 * time.Second

const (
	// A list has at most listedHandles connections and listedHandles contexts of each session.
	listedHandles = 2
	// roomPause is the interval between attempts to send to a worker's full channel.
	roomPause = time.Millisecond
)

// A query is a question to a worker about one of its sessions.
type query struct {
	done   chan struct{}
	answer handoff.Described // set before done is closed
}

// view is a session as the administrator sees it. The method collect makes it under s.mu, and the
// method await adds the worker's answer.
type view struct {
	admin.Session
	w     *worker
	query *query // nil if the worker has too many open questions
	isNew bool   // the question is new and must be sent
}

// Sessions lists the sessions that workers have.
func (s *Supervisor) Sessions(ctx context.Context) []admin.Session {
	list := s.views(ctx, func(*session) bool { return true })
	for i := range list {
		list[i].Handles = firstHandles(list[i].Handles)
	}
	return list
}

// firstHandles keeps the first listedHandles connections and contexts.
func firstHandles(all []admin.Handle) []admin.Handle {
	list, connections, contexts := []admin.Handle{}, 0, 0
	for _, h := range all {
		n := &connections
		if h.Kind == "context" {
			n = &contexts
		}
		if *n++; *n <= listedHandles {
			list = append(list, h)
		}
	}
	return list
}

// Session shows one session.
func (s *Supervisor) Session(ctx context.Context, number uint64) (admin.Session, error) {
	list := s.views(ctx, func(sess *session) bool { return sess.number == number })
	if len(list) == 0 {
		return admin.Session{}, noSession(number)
	}
	return list[0], nil
}

func (s *Supervisor) views(ctx context.Context, wanted func(*session) bool) []admin.Session {
	ctx, cancel := context.WithTimeout(ctx, s.answerTime)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	all := s.collect(wanted)
	slices.SortFunc(all, func(a, b view) int { return cmp.Compare(a.Number, b.Number) })
	fresh := map[*worker][]view{}
	for _, v := range all {
		if v.isNew {
			fresh[v.w] = append(fresh[v.w], v)
		}
	}
	for _, list := range fresh {
		asking.Go(func() {
			for _, v := range list {
				s.sendQuery(ctx, v)
			}
		})
	}
	list := []admin.Session{}
	for _, v := range all {
		v.Program = programOf(v.PID)
		if v.query != nil {
			v.await(ctx)
		}
		list = append(list, v.Session)
	}
	return list
}

// await waits for the worker's answer, and adds the answer to the view.
func (v *view) await(ctx context.Context) {
	select {
	case <-v.query.done:
	case <-v.w.gone:
	case <-ctx.Done():
	}
	if isClosed(v.query.done) {
		v.addAnswer(v.query.answer)
	}
}

// collect lists the sessions for which wanted() returns true. If a question about a session is open
// already, the view gets this question, and otherwise a new one. If the worker has too many open
// questions, the view gets no new question.
func (s *Supervisor) collect(wanted func(*session) bool) []view {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []view
	for w := range s.workers {
		for _, sess := range w.sessions {
			if !wanted(sess) {
				continue
			}
			v := view{Session: admin.Session{
				Number: sess.number, UID: sess.peer.UID, PID: sess.peer.PID,
				Worker: w.pid, Age: time.Since(sess.start).Seconds(),
				Handles: []admin.Handle{},
			}}
			if notes, err := w.page.Session(sess.slot); err == nil {
				method, handle := notes.InFlight()
				if v.Waits = method; method != "" && handle > 0 {
					v.Waits = fmt.Sprintf("%s %d", method, handle)
				}
			}
			v.w, v.query = w, w.queries[sess.number]
			// The factor 2 leaves room for open questions about ended sessions.
			v.isNew = v.query == nil && len(w.queries) < 2*w.slots.count
			if v.isNew {
				v.query = &query{done: make(chan struct{})}
				w.queries[sess.number] = v.query
			}
			all = append(all, v)
		}
	}
	return all
}

// sendQuery sends a question as soon as the worker's channel has room. If it cannot send the
// question, it closes the query, so that no administrator waits for an answer.
func (s *Supervisor) sendQuery(ctx context.Context, v view) {
	err := v.w.channel.TrySend(handoff.ToWorker{Describe: v.Number})
	for errors.Is(err, unix.EAGAIN) && ctx.Err() == nil {
		select {
		case <-time.After(roomPause):
		case <-ctx.Done():
		}
		err = v.w.channel.TrySend(handoff.ToWorker{Describe: v.Number})
	}
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.w.queries[v.Number] == v.query {
		delete(v.w.queries, v.Number)
		v.query.answer.Gone = true
		close(v.query.done)
	}
}

// queryAnswered handles a worker's answer. It returns false if no question was open.
func (s *Supervisor) queryAnswered(w *worker, d *handoff.Described) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := w.queries[d.Number]
	if a == nil {
		return false
	}
	delete(w.queries, d.Number)
	a.answer = d.Clean()
	close(a.done)
	return true
}

// addAnswer adds the worker's answer.
func (v *view) addAnswer(d handoff.Described) {
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

// programOf is the name of the program that the process runs. If the caller's process has ended,
// another process may have its number by now.
func programOf(pid int32) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // "" for a process that is gone
	return plain.Text(strings.TrimSuffix(string(text), "\n"), 64)
}
