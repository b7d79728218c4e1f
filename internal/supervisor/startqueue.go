package supervisor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// startQueue orders the starts of workers, so that the starts of one user do not delay those of
// another user. The rules:
//
//   - The field limit bounds the workers that start at the same time, for all users together. More
//     would only compete for the processors. The field limitPerUser bounds those of one user. The
//     daemon's own user has only the first limit.
//   - Users that wait are served in turn. The callers of one user are served in the order in which
//     they came.
//   - If a spare worker becomes a user's worker, this counts as a start, too, because it takes as
//     much work.
//   - A start that takes longer than the time in the field slow no longer counts for limit, but it
//     still counts for limitPerUser.
//   - A caller that stops waiting leaves the queue.
type startQueue struct {
	limit, limitPerUser int
	own                 account // limitPerUser does not hold for this account
	slow                time.Duration

	mu      sync.Mutex // guards all below
	running int        // starts that are neither over nor slow
	users   map[account]*userStarts
	queue   []account // waiting users, the next one first
}

type userStarts struct {
	running int // starts that are not over, slow ones included
	waiting []chan struct{}
}

// slowStart is the time after which a start is slow. A start takes some tens of milliseconds.
const slowStart = time.Second

func newStartQueue(limit int, own account) *startQueue {
	return &startQueue{limit: limit, limitPerUser: max(limit/2, 1), own: own, slow: slowStart,
		users: map[account]*userStarts{}}
}

// wait waits until the user may start a worker. The caller must call done() when the start is over.
// The error is that of ctx.
func (q *startQueue) wait(ctx context.Context, as account) (done func(), err error) {
	begins := make(chan struct{})
	q.mu.Lock()
	u := q.users[as]
	if u == nil {
		u = &userStarts{}
		q.users[as] = u
	}
	u.waiting = append(u.waiting, begins)
	if !slices.Contains(q.queue, as) {
		q.queue = append(q.queue, as)
	}
	q.dispatch()
	q.mu.Unlock()
	select {
	case <-begins:
		return q.track(as), nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	i := slices.Index(u.waiting, begins)
	if i >= 0 {
		u.waiting = slices.Delete(u.waiting, i, i+1)
		q.forget(as)
	}
	q.mu.Unlock()
	if i < 0 { // meanwhile dispatch has let the start begin, so end it
		q.track(as)()
	}
	return nil, ctx.Err()
}

// track follows a start that has begun. When the start becomes slow, track takes the start out of
// q.running. When the start is over, the caller must call done(), which takes it out of all counts.
func (q *startQueue) track(as account) (done func()) {
	counted := true // whether q.running has this start; guarded by q.mu
	leave := func() {
		if counted {
			counted = false
			q.running--
		}
	}
	slow := time.AfterFunc(q.slow, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		leave()
		q.dispatch()
	})
	return sync.OnceFunc(func() {
		slow.Stop()
		q.mu.Lock()
		defer q.mu.Unlock()
		leave()
		q.users[as].running--
		q.dispatch()
		q.forget(as)
	})
}

// dispatch lets waiting starts begin, as far as the limits allow. The caller holds q.mu.
func (q *startQueue) dispatch() {
	for i := 0; q.running < q.limit && i < len(q.queue); {
		as := q.queue[i]
		u := q.users[as]
		if u.running >= q.limitPerUser && as != q.own {
			i++
			continue
		}
		close(u.waiting[0])
		u.waiting = u.waiting[1:]
		u.running++
		q.running++
		q.queue = slices.Delete(q.queue, i, i+1)
		if len(u.waiting) > 0 {
			q.queue = append(q.queue, as)
		}
		i = 0
	}
}

// If no caller of the user waits, forget takes the user out of the queue. If no start of the user
// runs either, it also drops the user's entry. The caller holds q.mu.
func (q *startQueue) forget(as account) {
	u := q.users[as]
	if u == nil || len(u.waiting) > 0 {
		return
	}
	if i := slices.Index(q.queue, as); i >= 0 {
		q.queue = slices.Delete(q.queue, i, i+1)
	}
	if u.running == 0 {
		delete(q.users, as)
	}
}
