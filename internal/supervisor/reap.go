package supervisor

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// How the end of a worker's process is waited for. A process that has ended stays with whoever
// traces it until that one lets it go, and waitid(2) waits as long. So:
//
//   - Every wait has a bound. What it has waited for in vain is left behind: its callers are told,
//     and everything of it is closed.
//   - The kernel is asked again and again, for a wait in it could not be ended.
//   - What was left behind is asked for again whenever another worker is gone.

// An end is how a process has ended.
type end struct {
	signal unix.Signal // 0: it has exited
	status int         // if it has exited
	peak   int64       // the most memory that was resident, in bytes
	kept   bool        // it was killed, but the kernel does not say that it has ended
}

// reapTimeout bounds the time from a process's being killed to its end. A process that has much
// memory takes some of that.
const reapTimeout = 2 * time.Second

// awaitEnd waits until the worker's process has ended, and leaves it to be waited for. The process
// is killed if that takes longer than endTimeout.
func awaitEnd(w *worker) end {
	stuck := time.AfterFunc(endTimeout, w.kill)
	defer stuck.Stop()
	for pause := time.Millisecond; ; pause = min(pause+pause/8, 50*time.Millisecond) {
		if e, ok := hasEnded(w.pid); ok {
			return e
		}
		if killed := w.killedAt.Load(); killed != 0 && time.Since(time.Unix(0, killed)) > reapTimeout {
			return end{kept: true}
		}
		time.Sleep(pause)
	}
}

// text describes the end, for the log.
func (e end) text() string {
	switch {
	case e.kept:
		return "none yet"
	case e.signal != 0:
		return signalName(e.signal)
	}
	return fmt.Sprintf("exit status %d", e.status)
}

// signalName is the name of a signal, or its number: those for real time have no names, and any of
// them ends a process.
func signalName(sig unix.Signal) string {
	return cmp.Or(unix.SignalName(sig), fmt.Sprintf("signal %d", int(sig)))
}

// inOrder says whether the process has ended as it should.
func (e end) inOrder() bool { return e == end{peak: e.peak} }

// bury has the kernel forget a worker's process, and those that were left behind and have ended
// since.
func (s *Supervisor) bury(w *worker) {
	s.mu.Lock()
	candidates := append(s.kept, w)
	s.kept = nil
	s.mu.Unlock()
	for _, w := range candidates {
		if _, ok := hasEnded(w.pid); ok {
			_ = w.process.Wait() // what it returns is known
			continue
		}
		s.mu.Lock()
		s.kept = append(s.kept, w)
		s.mu.Unlock()
	}
}

// leaveBehind logs that a worker's process does not end.
func leaveBehind(w *worker, log *zap.Logger) {
	log.Error("worker was killed and does not end; it is left behind", zap.String("tracer", tracerOf(w.pid)))
}

// tracerOf is the pid of the process that traces another; "0" if there is none, and "" if that is
// not known.
func tracerOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
