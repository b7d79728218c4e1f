package rpc

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/session"
)

// A caller sends descriptors with its messages (SCM_RIGHTS, unix(7)). They become data channels.
// The rules:
//
//   - Every recvmsg gives the kernel room for descriptors. Descriptors that arrive have
//     close-on-exec.
//   - A caller sends a descriptor with the first byte of the message that announces it. The kernel
//     ends a recvmsg after the bytes that were sent with a descriptor. So no recvmsg gets the
//     descriptors of two messages.
//   - When a message begins, the descriptors of earlier messages are surplus, and are closed. To
//     find them, each descriptor has the offset at which its recvmsg ended. If this offset is at or
//     before the start of the message, the descriptor belongs to an earlier message.
//   - A call that announces a channel takes the oldest descriptor that waits.
//   - At most maxDescriptors wait. Each further descriptor is closed.
//   - The kernel drops descriptors if the buffer (the field oob) is too small, or if the process
//     has reached RLIMIT_NOFILE. Then tlsd closes the descriptors that came with the same recvmsg.
//   - A descriptor may be anything, so the method channel() checks it.
//   - When the newest descriptor has waited for Config.AnswerTimeout, all that wait are closed. At
//     the end of the caller's stream they are closed, too.
//
// A caller may send the caller's end of the control connection. It may also put this end into the
// queue of another socket, and send the descriptor of this socket. In both cases the end stays open
// while tlsd has the descriptor, so tlsd cannot see that the caller has closed the connection. So
// tlsd keeps no such descriptor: see channel() and refuseDescriptors().
//
// Only the goroutine that reads from the connection uses this type. When this goroutine has ended,
// Serve calls close().
type descriptors struct {
	received int64 // bytes of the stream so far
	waiting  []descriptor
	arrived  time.Time // when the newest descriptor arrived
	oob      [oobBytes]byte
}

// maxDescriptors is how many descriptors may wait for their call.
const maxDescriptors = 16

// oobBytes is the room for control messages: unix.CmsgSpace of maxDescriptors, and some more.
const oobBytes = 128

type descriptor struct {
	fd  int
	end int64 // the offset in the stream at which the recvmsg with the descriptor ended
}

// receive reads from the connection, like conn.Read, and keeps the descriptors that arrive.
func (d *descriptors) receive(conn *net.UnixConn, p []byte) (int, error) {
	n, oobn, flags, _, err := conn.ReadMsgUnix(p, d.oob[:])
	n = max(n, 0) // n is -1 with an error
	d.received += int64(n)
	d.add(d.oob[:max(oobn, 0)], flags&unix.MSG_CTRUNC != 0)
	return n, err
}

// add keeps the descriptors that came with one recvmsg. If the kernel has dropped some (truncated),
// add closes the others. When maxDescriptors wait already, add closes each further descriptor.
func (d *descriptors) add(oob []byte, truncated bool) {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			if truncated || len(d.waiting) == maxDescriptors {
				unix.Close(fd)
				continue
			}
			d.waiting = append(d.waiting, descriptor{fd, d.received})
			d.arrived = time.Now()
		}
	}
}

// beginMessage is called when the message at this offset of the stream begins. It closes the
// descriptors of earlier messages.
func (d *descriptors) beginMessage(offset int64) {
	for len(d.waiting) > 0 && d.waiting[0].end <= offset {
		unix.Close(d.next())
	}
}

// next takes the oldest descriptor.
func (d *descriptors) next() int {
	fd := d.waiting[0].fd
	if d.waiting = d.waiting[1:]; len(d.waiting) == 0 {
		d.waiting = nil
	}
	return fd
}

// close closes all descriptors that wait.
func (d *descriptors) close() {
	for len(d.waiting) > 0 {
		unix.Close(d.next())
	}
}

// closeLate closes all descriptors if the newest has waited for the time limit. If descriptors
// still wait, "some" is true, and "due" is how long they may still wait.
func (d *descriptors) closeLate(limit time.Duration) (due time.Duration, some bool) {
	if due = limit - time.Since(d.arrived); due <= 0 {
		d.close()
	}
	return due, len(d.waiting) > 0
}

// channel makes a data channel of the oldest descriptor, which must be one end of a pair of Unix
// stream sockets.
func (d *descriptors) channel() (*net.UnixConn, error) {
	if len(d.waiting) == 0 {
		return nil, overLimit("no descriptor has arrived with the call. Send one with " +
			"the call's first byte (SCM_RIGHTS). If you did, tlsd had no room for it " +
			"(RLIMIT_NOFILE)")
	}
	f := os.NewFile(uintptr(d.next()), "data channel")
	defer f.Close() // net.FileConn makes a duplicate
	var why string
	if rc, err := f.SyscallConn(); err != nil {
		why = err.Error()
	} else if err := rc.Control(func(fd uintptr) { why = notAChannel(int(fd)) }); err != nil {
		why = err.Error()
	}
	if why != "" {
		why = "channel: the descriptor " + why +
			"; it must be one end of a connected pair of Unix stream sockets"
		return nil, &session.Error{Kind: kind.Params, Why: why}
	}
	conn, err := net.FileConn(f)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return nil, overLimit("channel: this process has no room for the descriptor "+
			"(RLIMIT_NOFILE): %v", err)
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// notAChannel says why a descriptor cannot be a data channel, or returns "".
func notAChannel(fd int) string {
	switch typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); {
	case err != nil:
		return "is no socket: " + err.Error()
	case typ != unix.SOCK_STREAM:
		return "is no stream socket"
	}
	peer, err := unix.Getpeername(fd)
	if _, ok := peer.(*unix.SockaddrUnix); err == nil && !ok {
		return "is no Unix socket"
	}
	if err != nil {
		return "is not connected: " + err.Error()
	}
	own, err := unix.Getsockname(fd)
	if err != nil || hasName(peer) || hasName(own) {
		return "has been connected to a socket with a name"
	}
	if refuseDescriptors(fd) {
		return "has descriptors in its queue"
	}
	return ""
}

// hasName says whether the address has a name, to which a program can connect. The ends of a pair
// have no name. Package unix represents this as the name "@" or "".
func hasName(address unix.Sockaddr) bool {
	u, ok := address.(*unix.SockaddrUnix)
	return ok && u.Name != "" && u.Name != "@"
}
