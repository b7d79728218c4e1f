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

// This file waits for the end of workers' processes. If a tracer keeps a dead process, waitid(2)
// waits until the tracer releases the process. So:
//
//   - Every wait has a timeout. After the timeout, the supervisor leaves the process behind: it
//     tells the callers, and closes the worker's channel, page and standard error.
//   - The supervisor polls the kernel, because a wait in the kernel cannot be cancelled.
//   - When another worker ends, the supervisor reaps the processes that it left behind, if they
//     have ended.

// An exit describes how a process has ended.
type exit struct {
	signal unix.Signal // 0 if the process has exited
	status int         // the exit status; 0 after a signal
	peak   int64       // the largest resident memory, in bytes
	stuck  bool        // the process was killed, but the kernel does not report its end
}

// reapTimeout limits the time from the kill of a process to its end. The kernel may need a part of
// this time to free the process's memory.
const reapTimeout = 2 * time.Second

// awaitEnd waits until the worker's process has ended. After endTimeout it kills the process. If
// the process has not ended within reapTimeout after a kill, the result is stuck.
func awaitEnd(w *worker) exit {
	stuck := time.AfterFunc(endTimeout, w.kill)
	defer stuck.Stop()
	for pause := time.Millisecond; ; pause = min(pause+pause/8, 50*time.Millisecond) {
		if e, ok := hasEnded(w.pid); ok {
			return e
		}
		if killed := w.killedAt.Load(); killed != 0 &&
			time.Since(time.Unix(0, killed)) > reapTimeout {
			return exit{stuck: true}
		}
		time.Sleep(pause)
	}
}

// text describes the end, for the log.
func (e exit) text() string {
	switch {
	case e.stuck:
		return "none yet"
	case e.signal != 0:
		return signalName(e.signal)
	}
	return fmt.Sprintf("exit status %d", e.status)
}

// signalName is the name of a signal. For a signal without a name, such as a real-time signal, it
// is the number.
func signalName(sig unix.Signal) string {
	return cmp.Or(unix.SignalName(sig), fmt.Sprintf("signal %d", int(sig)))
}

// inOrder says whether the process has exited with status 0, and not by a signal.
func (e exit) inOrder() bool { return e == exit{peak: e.peak} }

// reap looks at the process of w, and at the processes that were left behind. It reaps those that
// have ended, and keeps the others for its next call.
func (s *Supervisor) reap(w *worker) {
	s.mu.Lock()
	candidates := append(s.unreaped, w)
	s.unreaped = nil
	s.mu.Unlock()
	for _, w := range candidates {
		if _, ok := hasEnded(w.pid); ok {
			_ = w.process.Wait() // the result is known already
			continue
		}
		s.mu.Lock()
		s.unreaped = append(s.unreaped, w)
		s.mu.Unlock()
	}
}

// leaveBehind logs that the supervisor leaves a worker's process behind.
func leaveBehind(w *worker, log *zap.Logger) {
	log.Error("worker was killed and does not end; it is left behind",
		zap.String("tracer", tracerOf(w.pid)))
}

// tracerOf is the pid of the process's tracer: "0" if there is none, "" if it is not known.
func tracerOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
