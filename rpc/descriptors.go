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

// Descriptors that a caller sends beside its messages (SCM_RIGHTS, unix(7)), to be data channels.
// The rules:
//
//   - Every recvmsg gives the kernel room for descriptors, and those that arrive are closed on
//     exec.
//   - A descriptor is sent with the first byte of the message that announces it. The kernel ends a
//     recvmsg behind the bytes that a descriptor was sent with. So a descriptor whose recvmsg ended
//     where a message begins, or before, is not that message's.
//   - When a message begins, the descriptors that are not its own are surplus, and are closed.
//   - A call that announces a channel takes the oldest descriptor that is left.
//   - At most mostDescriptors wait. Further ones are closed, and so is all that a recvmsg brings
//     that had more than there was room for, here or in the process.
//   - Nothing that a caller says of a descriptor is believed; see channel.
//   - What waits for its message longer than the answer timeout is closed, and so is all when the
//     caller sends no more.
//
// A caller may send its own end of the connection, or hide it in the queue of a socket that it
// sends. While that is open here, the caller's leaving cannot be seen. So nothing of that sort is
// kept: see channel and keepOut.
//
// The reading goroutine alone uses them.
type descriptors struct {
	received int64 // bytes of the stream
	waiting  []descriptor
	arrived  time.Time // when the last has
	oob      [oobBytes]byte
}

// mostDescriptors is how many descriptors wait for their call at most.
const maxDescriptors = 16

// oobBytes is the room for control messages: unix.CmsgSpace of mostDescriptors, and some.
const oobBytes = 128

type descriptor struct {
	fd  int
	end int64 // where in the stream its recvmsg ended
}

// receive is conn.Read, and keeps the descriptors that arrive.
func (d *descriptors) receive(conn *net.UnixConn, p []byte) (int, error) {
	n, oobn, flags, _, err := conn.ReadMsgUnix(p, d.oob[:])
	n = max(n, 0) // it is -1 with an error
	d.received += int64(n)
	d.add(d.oob[:max(oobn, 0)], flags&unix.MSG_CTRUNC != 0)
	return n, err
}

// add takes the descriptors of a control message. It takes none if the message was truncated.
func (d *descriptors) add(oob []byte, truncated bool) {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			if truncated || len(d.waiting) == maxDescriptors {
				unix.Close(fd)
				continue
			}
			d.waiting, d.arrived = append(d.waiting, descriptor{fd, d.received}), time.Now()
		}
	}
}

// begin says that the message which begins at that offset of the stream is taken.
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

// close closes all that wait.
func (d *descriptors) close() {
	for len(d.waiting) > 0 {
		unix.Close(d.next())
	}
}

// due is how long the descriptors may still wait, if any does. Those that have waited for most are
// closed.
func (d *descriptors) due(most time.Duration) (left time.Duration, some bool) {
	if left = most - time.Since(d.arrived); left <= 0 {
		d.close()
	}
	return left, len(d.waiting) > 0
}

// channel makes a data channel of the oldest descriptor: one end of a pair of Unix stream sockets,
// or an error.
func (d *descriptors) channel() (*net.UnixConn, error) {
	if len(d.waiting) == 0 {
		return nil, overLimit("no descriptor has arrived with the call: send one with its first byte (SCM_RIGHTS), or this process had no room for it (RLIMIT_NOFILE)")
	}
	f := os.NewFile(uintptr(d.next()), "data channel")
	defer f.Close() // the connection has a duplicate
	var why string
	if rc, err := f.SyscallConn(); err != nil {
		why = err.Error()
	} else if err := rc.Control(func(fd uintptr) { why = notAChannel(int(fd)) }); err != nil {
		why = err.Error()
	}
	if why != "" {
		return nil, &session.Error{Kind: kind.Params, Why: "channel: the descriptor " + why + "; it must be one end of a connected pair of Unix stream sockets"}
	}
	conn, err := net.FileConn(f)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return nil, overLimit("channel: this process has no room for the descriptor (RLIMIT_NOFILE): %v", err)
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// notAChannel says what is wrong with a descriptor, or "".
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

// named says whether an address is one that can be connected to. The ends of a pair have none,
// which package unix gives as "@".
func hasName(address unix.Sockaddr) bool {
	u, ok := address.(*unix.SockaddrUnix)
	return ok && u.Name != "" && u.Name != "@"
}
