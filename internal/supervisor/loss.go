package supervisor

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
)

// This file tells callers that their worker has died. Each caller gets one line of the protocol: an
// error of kind "lost". The rules:
//
//   - The line names a cause, or an operation, only if the supervisor has evidence of it.
//   - No line is sent into the middle of a message. The worker notes in its page of vitals (see
//     package vitals) that it is writing a message.
//   - The supervisor sends the line without waiting. If the buffer of the caller's connection is
//     full, the caller sees only the end of the connection.

const outOfMemory = "ran out of memory"

// sizeText writes a number of bytes as a flag accepts it, such as 512MiB.
func sizeText(n int64) string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if part := int64(1) << (30 - 10*i); n%part == 0 {
			return fmt.Sprintf("%d%s", n/part, unit)
		}
	}
	return fmt.Sprint(n)
}

// dumpSignal finds the name of the signal in a dump of the Go runtime, or returns "". After a
// deadly signal in Go code or C code, the runtime writes a dump and exits with status 2. One line
// of the dump begins with the signal's name. Before the name there may be "fatal error: " or
// "[signal ".
func dumpSignal(stderr string) string {
	for line := range strings.Lines(stderr) {
		line = strings.TrimPrefix(line, "fatal error: ")
		line = strings.TrimPrefix(line, "[signal ")
		if name, _, ok := strings.Cut(line, ": "); ok && unix.SignalNum(name) != 0 {
			return name
		}
	}
	return ""
}

// lacksMemory says whether stderr has the message of a Go runtime that got no memory from the
// system.
func lacksMemory(stderr string) bool {
	for line := range strings.Lines(stderr) {
		why, fatal := strings.CutPrefix(line, "fatal error: ")
		why = strings.TrimPrefix(why, "runtime: ")
		if fatal && (strings.HasPrefix(why, "out of memory") ||
			strings.HasPrefix(why, "cannot allocate memory")) {
			return true
		}
	}
	return false
}

// cause says how a worker has ended. The text completes "the worker of this session …".
func (e exit) cause(stderr string) string {
	switch {
	case e.stuck:
		return "was killed (SIGKILL), and another process keeps it from ending"
	case e.signal == unix.SIGKILL:
		return "was killed (SIGKILL)"
	case e.signal != 0:
		// dumpSignal goes first: e.signal may be a second signal, which has hit the process
		// while it wrote the dump.
		return diedOf(cmp.Or(dumpSignal(stderr), signalName(e.signal)))
	case e.status == 2:
		if name := dumpSignal(stderr); name != "" {
			return diedOf(name)
		}
		if strings.HasPrefix(stderr, "panic: ") || strings.Contains(stderr, "\npanic: ") {
			return "died of a panic"
		}
		if lacksMemory(stderr) {
			return outOfMemory
		}
		if strings.HasPrefix(stderr, "fatal error: ") ||
			strings.Contains(stderr, "\nfatal error: ") {
			return "died of a fatal error of its runtime"
		}
	}
	return fmt.Sprintf("exited with status %d", e.status)
}

// diedOf is the text for a signal. SIGSYS has only one cause, which the text names, too.
func diedOf(signal string) string {
	if signal == "SIGSYS" {
		return "died of SIGSYS: a filter of system calls around tlsd (a unit's " +
			"SystemCallFilter=, a container's profile) forbids a call that tlsd " +
			"needs; a unit needs @system-service and @sandbox"
	}
	return "died of " + signal
}

// deathReport has what the supervisor knows about a worker that has died.
type deathReport struct {
	cause     string
	operation string              // the method during which the worker died, or ""
	library   string              // the library's version, or "" if the worker was not ready
	lost      map[uint64]*session // the lost sessions, by number
}

// tellCallers sends the callers of a dead worker the reason, and closes the supervisor's copies of
// their connections.
func (s *Supervisor) tellCallers(w *worker, e exit, stderr string) deathReport {
	death := deathReport{cause: s.causeOf(e, stderr), operation: operationInLibrary(w)}
	if w.isReady() {
		death.library = w.report.Version
	}
	stopped, counts := s.takeSessions(w, e, &death)
	inside := death.operation
	for _, sess := range death.lost {
		if counts {
			// Count before closeCaller. After closeCaller the caller may connect again
			// at once, and the count decides how long it must wait (backoff.go).
			s.countDeath(sess.peer.account())
		}
		operation, mid := inside, true
		if notes, err := w.page.Session(sess.slot); err == nil {
			mid = notes.MidMessage()
			if method, _ := notes.InFlight(); operation == "" {
				operation = method
			}
		}
		if death.operation == "" {
			death.operation = operation
		}
		text := "lost: the worker of this session " + death.cause
		if operation != "" && !stopped {
			text += " in " + operation
		}
		if !mid {
			sess.sendLine(errorLine(kind.Lost, text))
		}
		if e.stuck {
			sess.shutCaller()
		}
		sess.closeCaller()
	}
	return death
}

// takeSessions moves the sessions of a dead worker to death.lost, and takes the worker out of the
// pool. If the supervisor has ended the worker, takeSessions sets death.cause to the supervisor's
// reason.
//
// The first result is true if an administrator has ended the session, or if tlsd was stopped. Then
// the text for callers names no operation. The second result is true if the user's next session may
// have to wait because of this death (backoff.go).
func (s *Supervisor) takeSessions(w *worker, e exit, death *deathReport) (stopped, counts bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	death.lost, w.sessions = w.sessions, nil
	if s.leavePool(w) { // a dead worker must get no session
		if time.Since(w.started) > settled {
			s.failures = 0
		}
		s.failures++
	}
	switch {
	case w.killReason != "":
		death.cause = w.killReason
		stopped = w.ending
	case w.ending && (e.signal == unix.SIGKILL || e.stuck):
		stopped = true
		death.cause = "has been ended, because tlsd was stopped"
	}
	return stopped, w.single && !w.ending
}

// causeOf calls e.cause, and adds what the supervisor knows about a lack of memory.
func (s *Supervisor) causeOf(e exit, stderr string) string {
	cause := e.cause(stderr)
	switch recent := s.oom.refresh(); {
	case e.signal == unix.SIGKILL && recent:
		cause = "was killed by the kernel, which was out of memory"
	case s.MaxMemory == 0:
	case cause == outOfMemory:
		cause += " (--max-memory " + sizeText(s.MaxMemory) + ")"
	case e.peak >= s.MaxMemory: // C and Go code may crash instead of reporting a lack of memory
		limit := " (--max-memory " + sizeText(s.MaxMemory) + ")"
		cause += " close to its limit of memory" + limit
	}
	return cause
}

// operationInLibrary returns the method for which threads of the dead worker were in the library.
// If the threads worked for different methods, or if no thread was in the library, the result is
// "".
func operationInLibrary(w *worker) string {
	name := ""
	for _, stay := range w.page.Inside() {
		if stay.Method == "" || name != "" && name != stay.Method {
			return ""
		}
		name = stay.Method
	}
	return name
}

// copyOf duplicates the connection's descriptor. The copy is not in Go's netpoller: if it were,
// each message of the caller would wake the supervisor.
func copyOf(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(original uintptr) {
		fd, failed = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return -1, fmt.Errorf("copy the connection's descriptor: %w", err)
	}
	return fd, nil
}

// dupCaller makes the supervisor's copy of the caller's connection.
func (sess *session) dupCaller(conn *net.UnixConn) (err error) {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	sess.callerFD, err = copyOf(conn)
	return err
}

// sendLine sends the caller a line, or nothing if the buffer of the connection has no room.
func (sess *session) sendLine(line []byte) {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	if sess.callerFD >= 0 {
		_, _ = unix.SendmsgN(sess.callerFD, line, nil, nil, unix.MSG_DONTWAIT|noSignal)
	}
}

// shutCaller shuts the connection down for all processes that have it open, such as a stuck worker.
func (sess *session) shutCaller() {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	if sess.callerFD >= 0 {
		_ = unix.Shutdown(sess.callerFD, unix.SHUT_RDWR)
	}
}

// closeCaller closes the supervisor's copy of the connection, if there is one.
func (sess *session) closeCaller() {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	if sess.callerFD >= 0 {
		unix.Close(sess.callerFD)
		sess.callerFD = -1
	}
}

// slots knows which slots of a page of vitals are free.
type slots struct {
	count int   // the number of slots
	next  int   // the first slot that was never taken
	free  []int // slots that were put back
}

func (p *slots) take() int {
	if n := len(p.free); n > 0 {
		slot := p.free[n-1]
		p.free = p.free[:n-1]
		return slot
	}
	p.next++
	return p.next - 1
}

func (p *slots) put(slot int) { p.free = append(p.free, slot) }
