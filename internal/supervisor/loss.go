package supervisor

import (
	"cmp"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
)

// What callers are told when their worker dies. The rules:
//
//   - The line is true: a cause or an operation that is not known is not named.
//   - It never falls into the middle of a message: the worker's page of vitals
//     says whether the caller may have a part of one.
//   - It is written without waiting. A caller that has not read what it was sent before has no
//     room for it perhaps, and then sees the end alone.

// signalLine is how the Go runtime begins the dump of a signal that it dies of
// (then the exit status is 2), on the goroutine's side and on C's.
var signalLine = regexp.MustCompile(`(?m)^(?:fatal error: |\[signal )?(SIG[A-Z]{2,6}): `)

// memoryLine is how the Go runtime says that it has got no more memory. It dies of that.
var memoryLine = regexp.MustCompile(`(?m)^fatal error: (?:runtime: )?(?:out of memory|cannot allocate memory)`)

const outOfMemory = "ran out of memory"

// sizeText is a number of bytes as one would give it to a flag.
func sizeText(n int64) string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if part := int64(1) << (30 - 10*i); n%part == 0 {
			return fmt.Sprintf("%d%s", n/part, unit)
		}
	}
	return fmt.Sprint(n)
}

// dumped is the signal whose dump this is, or "".
func dumped(stderr string) string {
	if m := signalLine.FindStringSubmatch(stderr); m != nil && unix.SignalNum(m[1]) != 0 {
		return m[1]
	}
	return ""
}

// cause says what became of a worker, as the rest of "the worker of this session …".
func (e end) cause(stderr string) string {
	switch {
	case e.kept:
		return "was killed (SIGKILL), and another process keeps it from ending"
	case e.signal == unix.SIGKILL:
		return "was killed (SIGKILL)"
	case e.signal != 0:
		// It may have met another one while it wrote the dump of the first.
		return diedOf(cmp.Or(dumped(stderr), signalName(e.signal)))
	case e.status == 2:
		if name := dumped(stderr); name != "" {
			return diedOf(name)
		}
		if strings.HasPrefix(stderr, "panic: ") || strings.Contains(stderr, "\npanic: ") {
			return "died of a panic"
		}
		if memoryLine.MatchString(stderr) {
			return outOfMemory
		}
		if strings.HasPrefix(stderr, "fatal error: ") || strings.Contains(stderr, "\nfatal error: ") {
			return "died of a fatal error of its runtime"
		}
	}
	return fmt.Sprintf("exited with status %d", e.status)
}

// diedOf says what a signal means that has one cause only.
func diedOf(signal string) string {
	if signal == "SIGSYS" {
		return "died of SIGSYS: a filter of system calls around tlsd (a unit's SystemCallFilter=, a container's profile) forbids one that it needs; " +
			"a unit needs @system-service and @sandbox"
	}
	return "died of " + signal
}

// lastWords is what is known of a worker that has died.
type lastWords struct {
	cause     string
	operation string // the last one known, "" if none
	library   string
	lost      map[uint64]*session
}

// farewell tells the callers of a worker that has died why, and ends their
// connections.
func (s *Supervisor) farewell(w *worker, e end, stderr string) lastWords {
	last := lastWords{cause: s.causeOf(e, stderr)}
	select {
	case <-w.ready:
		last.library = w.report.Version
	default:
	}
	stopped := false
	s.mu.Lock()
	last.lost, w.sessions = w.sessions, nil
	if s.leavePool(w) { // so that nobody is sent to it any more
		if time.Since(w.started) > settled {
			s.failures = 0
		}
		s.failures++
	}
	switch {
	case w.killed != "":
		last.cause = w.killed
		stopped = w.ending // an administrator's reason is told, and not the operation
	case w.ending && (e.signal == unix.SIGKILL || e.kept):
		stopped = true
		last.cause = "has been ended, because tlsd was stopped"
	}
	counts := w.own && !w.ending
	s.mu.Unlock()

	inside := inside(w)
	last.operation = inside
	for _, sess := range last.lost {
		if counts {
			s.died(sess.peer.account()) // before its caller knows, who may be quick to come again
		}
		operation, mid := inside, true
		if place, err := w.page.Session(sess.place); err == nil {
			mid = place.MidMessage()
			if method, _ := place.InFlight(); operation == "" {
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
			sess.tell(errorLine(kind.Lost, text))
		}
		if e.kept {
			sess.cut()
		}
		sess.letGo()
	}
	return last
}

// causeOf is the cause of an end, with what memory has to do with it.
func (s *Supervisor) causeOf(e end, stderr string) string {
	cause := e.cause(stderr)
	switch recent := s.oom.look(); {
	case e.signal == unix.SIGKILL && recent:
		cause = "was killed by the kernel, which was out of memory"
	case s.MaxMemory == 0:
	case cause == outOfMemory:
		cause += " (--max-memory " + sizeText(s.MaxMemory) + ")"
	case e.peak >= s.MaxMemory: // neither C nor Go looks everywhere whether it has got memory
		cause += " close to its limit of memory (--max-memory " + sizeText(s.MaxMemory) + ")"
	}
	return cause
}

// inside names the operation during which the worker was in the library, if it is certain.
func inside(w *worker) string {
	name := ""
	for _, stay := range w.page.Inside() {
		if stay.Method == "" || name != "" && name != stay.Method {
			return ""
		}
		name = stay.Method
	}
	return name
}

// copyOf makes a copy of the connection's descriptor that is unknown to Go's
// netpoller, which would otherwise wake up here for every message.
func copyOf(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(its uintptr) { fd, failed = unix.FcntlInt(its, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return -1, fmt.Errorf("copy its descriptor: %w", err)
	}
	return fd, nil
}

// keep makes the supervisor's copy of the connection.
func (sess *session) keep(conn *net.UnixConn) (err error) {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	sess.caller, err = copyOf(conn)
	return err
}

// tell sends the caller a line, if there is room for it.
func (sess *session) tell(line []byte) {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	if sess.caller >= 0 {
		_, _ = unix.SendmsgN(sess.caller, line, nil, nil, unix.MSG_DONTWAIT|noSignal)
	}
}

// cut ends the connection, whoever else has it open.
func (sess *session) cut() {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	if sess.caller >= 0 {
		_ = unix.Shutdown(sess.caller, unix.SHUT_RDWR)
	}
}

// letGo closes the supervisor's copy of the connection, if there is one.
func (sess *session) letGo() {
	sess.callerMu.Lock()
	defer sess.callerMu.Unlock()
	if sess.caller >= 0 {
		unix.Close(sess.caller)
		sess.caller = -1
	}
}

// places gives out the places of a page of vitals.
type places struct {
	most int // how many there are
	next int
	free []int
}

func (p *places) take() int {
	if n := len(p.free); n > 0 {
		place := p.free[n-1]
		p.free = p.free[:n-1]
		return place
	}
	p.next++
	return p.next - 1
}

func (p *places) giveBack(place int) { p.free = append(p.free, place) }
