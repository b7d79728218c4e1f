package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/sockets"
	"tlsd/internal/testkit"
)

// waiting is the number of callers of a user that wait in the queue.
func (t *startQueue) waiting(uid account) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := t.users[uid]; u != nil {
		return len(u.waiting)
	}
	return 0
}

// A start is the start of a worker for a caller. When a start ends, the next start belongs to the
// next user in turn, even if another user has more waiting callers.
func TestWaitingUsersAreServedInTurn(t *testing.T) {
	t.Parallel()
	const own = 1000
	q := newStartQueue(4, own)
	q.slow = time.Hour
	type start struct {
		uid  account
		done func()
	}
	begins := make(chan start, 100)
	var running []start
	// Four starts may run. User 1 gets two of them, and three of its callers wait. The daemon's
	// own user gets the other two. All later callers wait.
	for _, uid := range []account{1, 1, 1, 1, 1, own, own, 2, 2, 3} {
		waiting := q.waiting(uid)
		go func() {
			done, err := q.wait(t.Context(), uid)
			if err != nil {
				t.Errorf("user %v gets no start: %v", uid, err)
			}
			begins <- start{uid, done}
		}()
		if len(running) < 4 && waiting == 0 && !(uid == 1 && len(running) == 2) {
			running = append(running, <-begins)
			continue
		}
		for q.waiting(uid) == waiting {
			time.Sleep(time.Millisecond)
		}
	}
	var order []account
	for range 6 { // one start ends, and the next begins
		running[0].done()
		running[0].done() // the second call must have no effect
		begun := <-begins
		running = append(running[1:], begun)
		order = append(order, begun.uid)
	}
	if want := []account{1, 2, 3, 1, 2, 1}; !slices.Equal(order, want) {
		t.Errorf("the next starts belong to the users %v; want %v", order, want)
	}
}

// One user cannot have more than half of the starts that may run at a time, so another user does
// not have to wait. A caller that gives up leaves the queue.
func TestAUserHasHalfOfTheStarts(t *testing.T) {
	t.Parallel()
	q := newStartQueue(4, 1000)
	q.slow = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	var dones []func()
	for range 2 {
		done, err := q.wait(ctx, 1)
		testkit.Must(t, err)
		dones = append(dones, done)
	}
	waits := make(chan error, 1)
	go func() { _, err := q.wait(ctx, 1); waits <- err }()
	for q.waiting(1) == 0 {
		time.Sleep(time.Millisecond)
	}
	done, err := q.wait(ctx, 2) // does not wait, although a caller of user 1 waits
	testkit.Must(t, err)
	cancel() // the waiting caller leaves the queue
	if err := <-waits; err != context.Canceled {
		t.Errorf("the caller that gives up gets %v; want context.Canceled", err)
	}
	for _, done := range append(dones, done) {
		done()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running != 0 || len(q.users) != 0 || len(q.queue) != 0 {
		t.Errorf("all starts are over; the queue still has %d starts, the users %v and "+
			"the waiting users %v; want none of them", q.running, q.users, q.queue)
	}
}

// A start that takes too long no longer counts for the limit of all users, so that starts that hang
// do not stop other users. It still counts for the limit of its own user.
func TestASlowStartNoLongerCountsForTheTotal(t *testing.T) {
	t.Parallel()
	q := newStartQueue(2, 1000)
	q.slow = time.Millisecond
	for uid := range account(50) { // none of these starts ends
		if _, err := q.wait(t.Context(), uid); err != nil {
			t.Fatalf("user %v gets no start: %v", uid, err)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := q.users[1].running; n != 1 {
		t.Errorf("a slow start counts %d times for its own user, want once", n)
	}
}

// If the workers of one user never get ready, another user's session still starts. It does not wait
// until the first user's workers time out.
func TestOneUsersStartsDoNotHoldUpAnothers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to call as other users")
	}
	t.Parallel()
	const slow, quick = 61111, 62222
	for _, spares := range []int{0, 1} {
		d := startDaemon(t, workerPlay{NeverReadyFor: slow}, func(c *Config) {
			c.Policy, c.WarmOthers = Policy{UIDs: []uint32{slow, quick}}, spares
		})
		testkit.Must(t, os.Chmod(filepath.Dir(d.path), 0o755))
		testkit.Must(t, os.Chmod(d.path, 0o666))
		var callers []interface{ Close() error }
		for range 3 * maxStarting {
			callers = append(callers, d.dialFrom(slow))
			d.until("the caller is accepted, and the spares are ready", func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.perUID[slow] == len(callers) && len(d.others) == spares
			})
		}
		// On a slow machine a start may time out while the other user asks. Then the other
		// user may have waited for this timeout, so the test asks again.
		const late = "worker is not ready in time, and is killed"
		givenUp := func() int { return d.logs.FilterMessage(late).Len() }
		d.until("another user's session starts beside those that hang", func() bool {
			before := givenUp()
			got := d.askAs(quick, quick)
			if !strings.Contains(got, fmt.Sprintf(" uid=%d ", quick)) {
				t.Fatalf("the other user is told %q, want a line with uid=%d", got,
					quick)
			}
			n := d.starting()
			if most := max(maxStarting/2, 1); n > most {
				t.Fatalf("with %d spares, %d workers of one user start at once; "+
					"%d is the most", spares, n, most)
			}
			if n == 0 {
				t.Fatalf("with %d spares, another user's session has waited until "+
					"all starts timed out", spares)
			}
			return givenUp() == before
		})
		before, starting := givenUp(), d.starting()
		for _, c := range callers {
			c.Close()
		}
		d.until("the callers that have closed are forgotten", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.sessions == 0
		})
		if n := givenUp() - before; n > starting {
			t.Errorf("when the callers closed, %d starts were under way; since then "+
				"%d starts have timed out: workers were started for callers "+
				"that had closed", starting, n)
		}
	}
}

// starting is the number of workers that have a session and are not ready.
func (d *daemon) starting() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.workers {
		if w.single && w.load > 0 && !w.isReady() {
			n++
		}
	}
	return n
}

// Before a new caller's start, each other user gets at most one start, even if it has many callers
// that have waited longer.
func TestACallerWaitsForOneStartOfEachOtherUser(t *testing.T) {
	t.Parallel()
	const others, newcomer = 8, 100
	q := newStartQueue(2, 1000)
	q.slow = time.Hour
	type start struct {
		uid  account
		done func()
	}
	begins := make(chan start)
	enter := func(uid account) {
		if done, err := q.wait(t.Context(), uid); err == nil {
			select {
			case begins <- start{uid, done}:
			case <-t.Context().Done():
			}
		}
	}
	callers := func(uid account, n int) {
		before := q.waiting(uid)
		for range n {
			go enter(uid)
		}
		for q.waiting(uid) < before+n {
			time.Sleep(time.Millisecond)
		}
	}
	var running []start
	for uid := range account(2) {
		go enter(uid)
		running = append(running, <-begins)
	}
	for uid := range account(others) {
		callers(uid, 20)
	}
	callers(newcomer, 1)
	served := map[account]int{}
	for {
		running[0].done()
		running = append(running[1:], <-begins)
		uid := running[1].uid
		if uid == newcomer {
			break
		}
		if served[uid]++; served[uid] > 1 {
			t.Fatalf("user %d gets a second start before the new caller's first; "+
				"starts of each user: %v", uid, served)
		}
		go enter(uid) // the user has a new caller at once
	}
}

// untilHangup notices that a caller has closed its connection. If a caller only sends something, or
// shuts down its sending side, the connection is still open.
func TestAClosedCallerHasHungUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(fd int)
		left bool
	}{
		{"sends", func(fd int) { unix.Write(fd, []byte("x")) }, false},
		{"shuts down its sending side", func(fd int) { unix.Shutdown(fd, unix.SHUT_WR) },
			false},
		{"closes", func(fd int) { unix.Close(fd) }, true},
		{"sends and closes", func(fd int) { unix.Write(fd, []byte("x")); unix.Close(fd) },
			true},
	} {
		for _, early := range []bool{false, true} {
			fds, err := sockets.Pair(unix.SOCK_STREAM)
			testkit.Must(t, err)
			conn := connOfFD(t, fds[0])
			if early {
				c.do(fds[1])
			}
			ctx, end := untilHangup(t.Context(), conn)
			if !early {
				c.do(fds[1])
			}
			if c.left {
				select {
				case <-ctx.Done():
				case <-time.After(testkit.Patience):
					t.Errorf("untilHangup misses that a caller %s", c.name)
				}
			}
			end()
			if left := context.Cause(ctx) == errHungUp; left != c.left {
				t.Errorf("a caller that %s has hung up: %v; want %v", c.name,
					left, c.left)
			}
			if !c.left {
				unix.Close(fds[1])
			}
		}
	}
}
