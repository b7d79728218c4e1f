package supervisor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"tlsd/internal/confine"
)

// This file finds a worker for a session: a shared one, a spare one, or a new one.

// maxStarting limits the number of workers that start for sessions at the same time. More of them
// would only compete for the processors.
var maxStarting = 2 * runtime.GOMAXPROCS(0)

var errStopping = errors.New("tlsd is stopping")

// acquire finds a worker, adds 1 to the worker's load, and waits until the worker is ready. The end
// of the session subtracts 1 again. If the worker gets no session, the caller must call release.
// After an error of acquire there is nothing to release.
func (s *Supervisor) acquire(ctx context.Context, peer Peer) (*worker, error) {
	w, err := s.pickWorker(ctx, peer)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.ready:
		return w, nil
	case <-w.gone:
		err = fmt.Errorf("worker %d %s, before it was ready", w.pid, w.cause)
	case <-ctx.Done():
		err = waitError(ctx)
	}
	s.release(w)
	if w.single {
		s.stopNow(w) // no other session would use it
	}
	return nil, err
}

// pickWorker finds or starts a worker, which may not be ready yet.
func (s *Supervisor) pickWorker(ctx context.Context, peer Peer) (*worker, error) {
	as := peer.identity()
	if as == nil && s.Shared {
		return s.leastLoaded(ctx)
	}
	if as == nil {
		if w := s.takeSpare(&s.pool, func() {}); w != nil && !s.renewIfOutdated(w) {
			return w, nil
		}
	}
	return s.startOne(ctx, peer.account(), as)
}

// takeSpare takes the oldest worker out of the list, or returns nil if the list is empty. When the
// worker is ready or gone, finishStart calls startDone().
func (s *Supervisor) takeSpare(spares *[]*worker, startDone func()) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(*spares) == 0 {
		return nil
	}
	w := (*spares)[0]
	*spares = slices.Delete(*spares, 0, 1)
	w.single, w.startDone = true, startDone
	w.load++
	wakeUp(s.wake)
	return w
}

// leastLoaded chooses the shared worker with the smallest load. It waits while the pool is empty.
func (s *Supervisor) leastLoaded(ctx context.Context) (*worker, error) {
	for {
		s.mu.Lock()
		if len(s.pool) > 0 {
			byLoad := func(a, b *worker) int { return a.load - b.load }
			w := slices.MinFunc(s.pool, byLoad)
			w.load++
			s.mu.Unlock()
			return w, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, waitError(ctx)
		}
	}
}

// startOne starts a worker for one session of a user, or gives the user a spare worker (engage). In
// both cases startOne first waits in the queue of starts. When the worker is ready or gone,
// finishStart calls done(), and the queue admits the next start.
func (s *Supervisor) startOne(ctx context.Context, of account, as *confine.Identity) (
	*worker, error) {
	done, err := s.starts.wait(ctx, of)
	if err != nil {
		return nil, waitError(ctx)
	}
	if as != nil {
		if w := s.takeSpare(&s.others, done); w != nil {
			s.engage(w, as)
			return w, nil
		}
	}
	w, err := s.spawn(as != nil,
		func(w *worker) { w.single, w.load, w.startDone = true, 1, done })
	if err != nil {
		done()
		return nil, err
	}
	s.engage(w, as)
	return w, nil
}

// waitError tells why ctx has ended a wait for a worker.
func waitError(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errHungUp) {
		return errHungUp
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("none was ready within %v", admitTimeout)
	}
	return errStopping
}
