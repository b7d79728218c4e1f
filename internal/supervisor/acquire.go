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

// acquire finds a ready worker, and counts one session more in the worker's load until release.
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
		s.stopNow(w) // the worker has no session to finish
	}
	return nil, err
}

// pickWorker finds a worker that is ready or starting.
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

// takeSpare takes the oldest of the spare workers, or returns nil if there is none. startDone is
// called when the worker's start is over.
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

// leastLoaded chooses the shared worker with the fewest sessions. It waits while there is no
// worker.
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

// startOne starts a worker for one session of a user, or engages a spare for that user. The queue
// of starts counts this start until the worker is ready or gone.
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

// waitError gives the reason why a wait for a worker has ended.
func waitError(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errHungUp) {
		return errHungUp
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("none was ready within %v", admitTimeout)
	}
	return errStopping
}
