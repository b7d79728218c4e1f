package supervisor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Workers are started in turns, so that no user's starts hold up another's. The rules:
//
//   - So many are started at the same time, and of one user half of that: more would only take the
//     processor from each other. The daemon's own user may have all.
//   - Users who wait are served one after the other, and each user's callers in their order.
//   - A spare worker that becomes a user's takes a turn, too: until it is ready, it is as much work
//     as another.
//   - A start that is slow leaves its place to other users. It goes on counting for its own user.
//   - A caller that stops waiting gives up its place in the queue.
type turns struct {
	most, mostPerUser int
	own               account // whom mostPerUser does not bind
	slow              time.Duration

	mu    sync.Mutex // guards all below
	now   int        // starts that are not slow
	users map[account]*userTurns
	queue []account // the users who wait, who is next first
}

type userTurns struct {
	now     int // starts, slow ones too
	waiting []chan struct{}
}

// slowStart is how long a start keeps its place from other users. One takes some tens of
// milliseconds.
const slowStart = time.Second

func newTurns(most int, own account) *turns {
	return &turns{most: most, mostPerUser: max(most/2, 1), own: own, slow: slowStart, users: map[account]*userTurns{}}
}

// take waits for a turn of the user, whose end is to be told by calling done. The error is the
// context's.
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
	if i < 0 { // it has begun meanwhile
		t.begun(uid)()
	}
	return nil, ctx.Err()
}

// begun has a turn's place pass to others when the turn is slow, or done.
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

// next begins the turns for which there is a place. The caller holds t.mu.
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

// forget drops what nobody needs of a user. The caller holds t.mu.
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
