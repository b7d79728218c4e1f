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

// This file tells callers that their worker has died. The rules:
//
//   - The line is true. It names a cause only if the cause is certain, and an operation only if the
//     operation is certain.
//   - No line is sent into the middle of a message. The worker notes in its page of vitals (see
//     package vitals) that it is writing a message.
//   - The supervisor sends the line without waiting. If the caller's buffer is full, the caller
//     sees only the end of the connection.

const outOfMemory = "ran out of memory"

// sizeText is a number of bytes in the form that a flag takes.
func sizeText(n int64) string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if part := int64(1) << (30 - 10*i); n%part == 0 {
			return fmt.Sprintf("%d%s", n/part, unit)
		}
	}
	return fmt.Sprint(n)
}

// dumpSignal is the signal that the Go runtime names in its dump in stderr, or "". When a deadly
// signal hits Go code or C code, the runtime writes a dump and exits with status 2. A line of the
// dump begins with the signal's name.
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

// lacksMemory says whether stderr has the Go runtime's last words when it gets no more memory.
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

// cause says how a worker has ended, as the rest of "the worker of this session …".
func (e exit) cause(stderr string) string {
	switch {
	case e.stuck:
		return "was killed (SIGKILL), and another process keeps it from ending"
	case e.signal == unix.SIGKILL:
		return "was killed (SIGKILL)"
	case e.signal != 0:
		// The first signal counts: the process may get another one while it writes the
		// dump.
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

// diedOf names the signal. SIGSYS has only one cause, which the text names, too.
func diedOf(signal string) string {
	if signal == "SIGSYS" {
		return "died of SIGSYS: a filter of system calls around tlsd (a unit's " +
			"SystemCallFilter=, a container's profile) forbids one that it needs; " +
			"a unit needs @system-service and @sandbox"
	}
	return "died of " + signal
}

// deathReport has what the supervisor knows about a worker that has died.
type deathReport struct {
	cause     string
	operation string // the library call during which the worker died; "": not known
	library   string
	lost      map[uint64]*session
}

// tellCallers tells the callers of a dead worker the reason, and ends their connections.
func (s *Supervisor) tellCallers(w *worker, e exit, stderr string) deathReport {
	last := deathReport{cause: s.causeOf(e, stderr), operation: operationInLibrary(w)}
	if w.isReady() {
		last.library = w.report.Version
	}
	stopped, counts := s.takeSessions(w, e, &last)
	inside := last.operation
	for _, sess := range last.lost {
		if counts {
			s.countDeath(sess.peer.account()) // before the caller connects again
		}
		operation, mid := inside, true
		if notes, err := w.page.Session(sess.slot); err == nil {
			mid = notes.MidMessage()
			if method, _ := notes.InFlight(); operation == "" {
				operation = method
			}
		}
		if last.operation == "" {
			last.operation = operation
		}
		text := "lost: the worker of this session " + last.cause
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
	return last
}

// takeSessions takes the sessions from a dead worker, and takes the worker out of the pool. If the
// supervisor has ended the worker, takeSessions corrects last.cause. stopped: an administrator or
// the stop of tlsd has ended the worker, and the text for callers names no operation. counts: the
// death counts for the user's streak.
func (s *Supervisor) takeSessions(w *worker, e exit, last *deathReport) (stopped, counts bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last.lost, w.sessions = w.sessions, nil
	if s.leavePool(w) { // so that the worker gets no more sessions
		if time.Since(w.started) > settled {
			s.failures = 0
		}
		s.failures++
	}
	switch {
	case w.killReason != "":
		last.cause = w.killReason
		stopped = w.ending
	case w.ending && (e.signal == unix.SIGKILL || e.stuck):
		stopped = true
		last.cause = "has been ended, because tlsd was stopped"
	}
	return stopped, w.single && !w.ending
}

// causeOf is the cause of an end. It adds whether memory was short.
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

// operationInLibrary names the operation during which the worker was in the library. It returns ""
// if there was none, or if there were several.
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

// copyOf duplicates the connection's descriptor. The copy is not in Go's netpoller, or else every
// message would wake the supervisor.
func copyOf(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(its uintptr) {
		fd, failed = unix.FcntlInt(its, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return -1, fmt.Errorf("copy its descriptor: %w", err)
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

// sendLine sends the caller a line if the buffer has room.
func (sess *session) sendLine(line []byte) {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	if sess.callerFD >= 0 {
		_, _ = unix.SendmsgN(sess.callerFD, line, nil, nil, unix.MSG_DONTWAIT|noSignal)
	}
}

// shutCaller shuts the connection down, although another process has it open.
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

// slots gives out the slots of a page of vitals.
type slots struct {
	count int // the number of slots
	next  int
	free  []int
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
