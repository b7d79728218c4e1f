package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// An arena is a daemon with its callers and peers.
type arena struct {
	t        *testing.T
	seed     uint64
	restarts bool
	killing  [2]time.Duration // the shortest and the longest time between two kills of workers

	ca, stranger *testcert.CA
	cert         *testcert.Cert
	// a file with the CA, and sometimes with a second CA; changeBundles replaces it now and
	// then
	bundle  string
	temp    string // the daemon's folder for temporary files
	admin   string // the path of the daemon's admin socket
	d       *testd.Daemon
	peer    *peer
	ports   chan int // free ports of 127.0.0.1
	figures *figures
	atRest  rest // the daemon's state before the run

	ctx  context.Context // of the run; done when its time is over, or after a failure
	stop context.CancelFunc

	// daemon is locked for reading while a goroutine reads the socket or the pid of d, and for
	// writing during a restart.
	daemon sync.RWMutex
	epoch  atomic.Int64 // grows before and after each restart of the daemon

	mu       sync.Mutex // guards the two fields below, and is held while a worker is killed
	sessions map[*session]struct{}
	killed   map[int]time.Time // when a worker was killed, by its pid
}

func newArena(t *testing.T, seed uint64, flags []string, restarts bool,
	killing [2]time.Duration) *arena {
	t.Helper()
	a := &arena{t: t, seed: seed, restarts: restarts, killing: killing,
		ca: testcert.NewCA(t, "Soak CA"), stranger: testcert.NewCA(t, "Stranger"),
		bundle: filepath.Join(t.TempDir(), "bundle.pem"), temp: t.TempDir(),
		admin: filepath.Join(t.TempDir(), "admin"),
		ports: make(chan int, 32), figures: newFigures(),
		sessions: map[*session]struct{}{}, killed: map[int]time.Time{},
	}
	a.cert = a.ca.Localhost(t)
	testkit.Must(t, os.WriteFile(a.bundle, a.ca.PEM(), 0o600))
	a.peer = startPeer(t, a.cert)
	for range cap(a.ports) {
		a.ports <- testkit.Port(t)
	}
	a.d = testd.StartWith(t, testd.Options{
		Flags: append(a.commonFlags(), flags...),
		// With little garbage in its heap (GOGC), the supervisor soon has its final size.
		Env: []string{"TMPDIR=" + a.temp, "GOGC=10"}, MayFail: restarts,
	})
	return a
}

// commonFlags are the flags that each daemon of the soak gets.
func (a *arena) commonFlags() []string {
	return []string{"--watchdog=4s", "--drain-timeout=1s", "--admin-socket=" + a.admin}
}

// run lets the callers play scenes, and does the acts of chaos_test.go, until the time is over and
// everything in musts has happened.
func (a *arena) run() {
	a.atRest = a.rest()
	a.ctx, a.stop = context.WithCancel(a.t.Context())
	defer a.stop()
	var all sync.WaitGroup
	all.Go(a.endInTime)
	for i := range *callers {
		random := rand.New(rand.NewPCG(a.seed, uint64(i)))
		all.Go(func() {
			for a.ctx.Err() == nil {
				a.play(random)
			}
		})
	}
	for i, act := range []func(*rand.Rand){a.killWorkers, a.killCallers, a.changeBundles,
		a.hangUp, a.restart} {
		random := rand.New(rand.NewPCG(a.seed, 1000+uint64(i)))
		all.Go(func() { act(random) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	sampled := make(chan struct{})
	go func() { defer close(sampled); a.sample(ctx) }()
	all.Wait()
	cancel()
	<-sampled
}

// musts has what a run must have tested, as figures counts it.
var musts = []string{"scenes", "sessions", "connections", "accepts", "raw sessions",
	"abandoned sessions", "cancelled", "refused certificates", "kills of callers"}

// endInTime ends the run after the time *duration. On a busy machine, not everything in musts has
// happened by then. So endInTime waits for the rest, but at most for the time longestExtra.
func (a *arena) endInTime() {
	const longestExtra = 10 * time.Minute
	defer a.stop()
	ctx, cancel := context.WithTimeout(a.ctx, *duration)
	defer cancel()
	<-ctx.Done()
	ctx, cancel = context.WithTimeout(a.ctx, longestExtra)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for len(a.figures.missing()) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fail records a failure of the test, and ends the run.
func (a *arena) fail(format string, args ...any) {
	a.t.Helper()
	a.t.Errorf(format, args...)
	a.stop()
}

// pause waits for a random time, or until the run is over.
func (a *arena) pause(random *rand.Rand, least, most time.Duration) {
	select {
	case <-time.After(least + time.Duration(random.Int64N(int64(most-least)))):
	case <-a.ctx.Done():
	}
}

// A scene is a short conversation of a caller, such as a transfer. Each caller plays one scene
// after the other.
type scene struct {
	*arena
	name     string
	random   *rand.Rand
	ctx      context.Context
	epoch    int64 // of the arena, when the scene began
	began    time.Time
	sessions []*session
}

// A session is a session of a scene. doomed is set before the soak kills the session's worker.
type session struct {
	*client.Client
	pid    int // of its worker
	pidfd  int
	doomed atomic.Bool
}

// play plays one scene.
func (a *arena) play(random *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	which := scenes[random.IntN(len(scenes))]
	sc := &scene{arena: a, name: which.name, random: random, ctx: ctx, epoch: a.epoch.Load(),
		began: time.Now()}
	err := which.play(sc)
	switch excused := sc.excused(); {
	case err == nil:
		a.figures.add("scenes", 1)
	case errors.As(err, new(wrongByte)) || ctx.Err() != nil || !excused:
		a.fail("scene %q fails after %v (is a kill of the soak an excuse? %t): %v", sc.name,
			time.Since(sc.began), excused, err)
	default:
		a.figures.add("scenes cut short", 1)
		a.figures.error(err)
	}
	for _, s := range sc.sessions {
		a.close(s)
	}
}

// excused says whether the soak itself may have caused a failure of the scene.
func (sc *scene) excused() bool {
	if sc.arena.epoch.Load() != sc.epoch {
		return true
	}
	for _, s := range sc.sessions {
		if s.doomed.Load() {
			return true
		}
	}
	return false
}

// open begins a session.
func (sc *scene) open() (*session, error) {
	a := sc.arena
	a.daemon.RLock()
	socket := a.d.Socket
	a.daemon.RUnlock()
	c, err := client.Dial(sc.ctx, socket)
	if err != nil {
		if a.killedSince(sc.began.Add(-time.Minute)) && a.shared() {
			// A worker was killed lately. A new session may get a worker that is dying,
			// or no worker in time.
			sc.sessions = append(sc.sessions, doomedSession)
		}
		return nil, fmt.Errorf("dial: %w", err)
	}
	s := &session{Client: c, pidfd: -1}
	sc.sessions = append(sc.sessions, s)
	hello, err := c.Hello(sc.ctx)
	s.pid = hello.Server.PID
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		s.pidfd, err = unix.PidfdOpen(s.pid, 0)
	}
	_, dead := a.killed[s.pid]
	if dead || err != nil && a.shared() && len(a.killed) > 0 {
		s.doomed.Store(true)
	}
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	a.sessions[s] = struct{}{}
	a.figures.add("sessions", 1)
	return s, nil
}

// doomedSession excuses a scene, when it is added to the sessions of the scene.
var doomedSession = func() *session { s := &session{pidfd: -1}; s.doomed.Store(true); return s }()

// close ends a session.
func (a *arena) close(s *session) {
	if s.Client == nil {
		return
	}
	a.mu.Lock()
	delete(a.sessions, s)
	if s.pidfd >= 0 {
		unix.Close(s.pidfd)
		s.pidfd = -1
	}
	a.mu.Unlock()
	s.Close()
}

func (a *arena) killedSince(when time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.killed {
		if at.After(when) {
			return true
		}
	}
	return false
}

// shared says whether sessions may share a worker. A daemon that is restarted may have either
// isolation.
func (a *arena) shared() bool { return strings.HasSuffix(a.t.Name(), "shared") || a.restarts }
