package supervisor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// turns orders the starts of workers, so that no user's starts delay another user's. The rules:
//
//   - At most `most` workers start at the same time, and at most half as many of one user. More
//     would only compete for the processors. The daemon's own user may have all.
//   - Waiting users are served in turn, and each user's callers in their order.
//   - A spare worker that becomes a user's counts as a start, too: it is as much work.
//   - A slow start no longer counts for the total. It still counts for its own user.
//   - A caller that stops waiting leaves the queue.
type turns struct {
	most, mostPerUser int
	own               account // the account without the limit mostPerUser
	slow              time.Duration

	mu    sync.Mutex // guards all below
	now   int        // starts that are not over and not slow
	users map[account]*userTurns
	queue []account // waiting users, the next one first
}

type userTurns struct {
	now     int // starts that are not over, slow ones included
	waiting []chan struct{}
}

// slowStart is the time after which a start is slow. A start takes some tens of milliseconds.
const slowStart = time.Second

func newTurns(most int, own account) *turns {
	return &turns{most: most, mostPerUser: max(most/2, 1), own: own, slow: slowStart, users: map[account]*userTurns{}}
}

// take waits until the user may start a worker. The caller must call done when the start is over.
// The error is the context's.
func (t *turns) take(ctx context.Context, uid account) (done func(), err error) {
	begins := make(chan struct{})
	t.mu.Lock()
	u := t.users[uid]
	if u == nil {
		u = &userTurns{}
		t.users[uid] = u
	}
	u.waiting = append(u.waiting, begins)
	if !slices.Contains(t.queue, uid) {
		t.queue = append(t.queue, uid)
	}
	t.next()
	t.mu.Unlock()
	select {
	case <-begins:
		return t.begun(uid), nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(u.waiting, begins)
	if i >= 0 {
		u.waiting = slices.Delete(u.waiting, i, i+1)
		t.forget(uid)
	}
	t.mu.Unlock()
	if i < 0 { // next has let the start begin meanwhile
		t.begun(uid)()
	}
	return nil, ctx.Err()
}

// begun counts a start out of the total when the start becomes slow, and out of everything at done.
func (t *turns) begun(uid account) (done func()) {
	placed := true // guarded by t.mu
	leave := func() {
		if placed {
			placed = false
			t.now--
		}
	}
	slow := time.AfterFunc(t.slow, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		leave()
		t.next()
	})
	return sync.OnceFunc(func() {
		slow.Stop()
		t.mu.Lock()
		defer t.mu.Unlock()
		leave()
		t.users[uid].now--
		t.next()
		t.forget(uid)
	})
}

// next lets waiting starts begin, as far as the limits allow. The caller holds t.mu.
func (t *turns) next() {
	for i := 0; t.now < t.most && i < len(t.queue); {
		uid := t.queue[i]
		u := t.users[uid]
		if u.now >= t.mostPerUser && uid != t.own {
			i++
			continue
		}
		close(u.waiting[0])
		u.waiting = u.waiting[1:]
		u.now++
		t.now++
		t.queue = slices.Delete(t.queue, i, i+1)
		if len(u.waiting) > 0 {
			t.queue = append(t.queue, uid)
		}
		i = 0
	}
}

// forget drops the entries of a user without starts and waiting callers. The caller holds t.mu.
func (t *turns) forget(uid account) {
	u := t.users[uid]
	if u == nil || len(u.waiting) > 0 {
		return
	}
	if i := slices.Index(t.queue, uid); i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
	}
	if u.now == 0 {
		delete(t.users, uid)
	}
}
