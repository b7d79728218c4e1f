// Package handoff is the channel between tlsd's supervisor and one of its worker processes. It is a
// socket pair. On it the supervisor hands over accepted connections, and the worker reports the end
// of each session.
//
// The rules:
//
//   - Each packet is one message: JSON of at most [MaxMessage] bytes. The socket's type,
//     SOCK_SEQPACKET, keeps the bounds and the order of packets.
//   - The supervisor sends the first message, with the worker's configuration. If the worker must
//     become another user, this message also names the user. Later a message for each session
//     carries the session's connection (SCM_RIGHTS, unix(7)).
//   - The worker answers with one [Ready]. If it cannot serve, it sends the reason instead (Unfit),
//     and exits. After the Ready it sends an [Ended] for each session, a pong for each ping, and a
//     [Described] for each question about a session. It also reports events for the audit log, in
//     [Audit] messages.
//   - The channel ends when the supervisor closes its side or dies. Then the worker ends its
//     sessions and exits.
//   - Only the worker accepts descriptors. Messages of a worker are checked like any foreign input,
//     because a worker may act for another user than the supervisor's.
//
// The sender never makes an [os.File] of a connection. The method Fd of os.File would make the
// socket blocking, also for other processes that share it.
package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/audit"
	"tlsd/internal/confine"
	"tlsd/internal/plain"
	"tlsd/internal/policy"
	"tlsd/internal/sockets"
)

const (
	// MaxMessage bounds a message, in bytes.
	MaxMessage = 64 << 10
	// FD is the worker's descriptor of the channel.
	FD = 3
	// KeyLogFD is the worker's descriptor of the file for the secrets of connections, if the
	// worker is told to write them.
	KeyLogFD = 5
	// Arg0 is the zeroth argument of a worker. By this argument the program knows that it is a
	// worker, and people recognise the worker in ps(1).
	Arg0 = "tlsd: worker"

	// sendTimeout is the timeout of a Send. A Send waits while the other side does not read.
	sendTimeout = 5 * time.Second
)

// ToWorker is a message of the supervisor. A message sets one field. Only a message with Config may
// also set As.
type ToWorker struct {
	Config json.RawMessage `json:"config,omitempty"`
	// As is the user that the worker must become before it serves.
	As      *confine.Identity `json:"as,omitempty"`
	Session *Session          `json:"session,omitempty"`
	Ping    uint64            `json:"ping,omitempty"` // the number of the ping

	Describe uint64 `json:"describe,omitempty"` // the number of a session
	End      *End   `json:"end,omitempty"`
	LogLevel string `json:"logLevel,omitempty"` // the new level
}

// Session announces a connection, which travels with the message.
type Session struct {
	Number uint64 `json:"number"`
	Slot   int    `json:"slot"` // the session's slot in the page of vitals (package vitals)
	UID    uint32 `json:"uid"`
	PID    int32  `json:"pid"`

	Policy *policy.Policy `json:"policy,omitempty"` // a worker serves no session without one
}

// FromWorker is a message of a worker. Exactly one of its fields is set.
type FromWorker struct {
	Ready *Ready `json:"ready,omitempty"`
	Unfit string `json:"unfit,omitempty"` // instead of Ready: why the worker cannot serve
	Ended *Ended `json:"ended,omitempty"`
	Pong  uint64 `json:"pong,omitempty"` // the number of the ping
	Audit *Audit `json:"audit,omitempty"`

	Described *Described `json:"described,omitempty"` // answers Describe
}

// Ready says that the worker takes sessions, and which library it has.
type Ready struct {
	Backend string `json:"backend"`           // "openssl" or "stub"
	Version string `json:"version,omitempty"` // of the library
	Path    string `json:"path,omitempty"`    // of the library
	Error   string `json:"error,omitempty"`   // why there is no library

	// Confinement says for each measure "on", or why the measure is not in force. Nil: no
	// confinement was asked for.
	Confinement map[string]string `json:"confinement,omitempty"`
}

// Clean limits the length of the texts in the report, and makes control characters in them visible.
func (r Ready) Clean() Ready {
	const longest = 16 << 10
	out := Ready{
		Backend: plain.Text(r.Backend, longest), Version: plain.Text(r.Version, longest),
		Path:  plain.Text(r.Path, longest),
		Error: plain.Text(r.Error, longest),
	}
	for measure, state := range r.Confinement {
		if out.Confinement == nil {
			out.Confinement = map[string]string{}
		}
		out.Confinement[plain.Text(measure, longest)] = plain.Text(state, longest)
	}
	return out
}

// ErrNotTaken is the error of ReceiveConn if no descriptor was free for the connection of a
// message. The message itself was received, and the channel can go on.
var ErrNotTaken = errors.New("the process has no descriptor free for a connection (RLIMIT_NOFILE)")

// Audit is an event of a session for the administrator. It comes before the Ended of the session.
type Audit struct {
	Session uint64 `json:"session"`
	// Event is nil if the message only reports events that were left out.
	Event *audit.Event `json:"event,omitempty"`
	// Missed is the number of the session's events that were left out since its previous Audit.
	Missed uint64 `json:"missed,omitempty"`
}

// Ended says that a session is over, and that all its resources are freed.
type Ended struct {
	Number   uint64 `json:"number"`
	NotTaken bool   `json:"notTaken,omitempty"` // the session has not begun: see ErrNotTaken
	// Error says why the session has ended. It is empty if the caller has ended the session.
	Error string `json:"error,omitempty"`

	Totals *Totals `json:"totals,omitempty"`
}

// Totals are the numbers of a session at its end.
type Totals struct {
	Handles  int   `json:"handles"`  // opened handles
	Received int64 `json:"received"` // bytes from peers
	Sent     int64 `json:"sent"`     // bytes to peers
}

// Conn is one end of the channel. Only one goroutine may receive. Send is safe for concurrent use.
type Conn struct{ c *net.UnixConn }

// Pair makes a channel: the supervisor's end, and the file that becomes descriptor [FD] of the
// worker. The caller closes both ends.
func Pair() (*Conn, *os.File, error) {
	fds, err := sockets.Pair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	child := os.NewFile(uintptr(fds[1]), "worker's channel")
	ours, err := open(fds[0])
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return ours, child, nil
}

// Open takes the worker's end, descriptor [FD].
func Open() (*Conn, error) {
	c, err := open(FD)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is not tlsd's channel: %w", FD, err)
	}
	return c, nil
}

// open makes a Conn of the socket fd. The Conn has a copy of fd. open always closes fd, even after
// an error.
func open(fd int) (*Conn, error) {
	if err := check(fd, unix.SOCK_SEQPACKET); err != nil {
		unix.Close(fd)
		return nil, err
	}
	c, err := adopt(fd)
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}

// Close ends the channel.
func (c *Conn) Close() error { return c.c.Close() }

// CloseSend ends the sending. The other side then reads the end of the channel. Messages of the
// other side can still be received.
func (c *Conn) CloseSend() error { return c.c.CloseWrite() }

// Send sends msg, and with it the socket conn, if conn is not nil. The receiver gets a copy. The
// caller of Send must still close conn.
func (c *Conn) Send(msg any, conn *net.UnixConn) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("a message of %d bytes is longer than the channel's %d",
			len(b), MaxMessage)
	}
	c.c.SetWriteDeadline(time.Now().Add(sendTimeout))
	if conn == nil {
		_, err = c.c.Write(b)
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = c.c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}

// TrySend sends msg if the channel has room for msg, and else returns an error. It waits neither
// for room nor for a Send of another goroutine.
func (c *Conn) TrySend(msg any) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	raw, err := c.c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, sent = unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|noSignal)
	})
	return errors.Join(err, sent)
}

// await waits for a message, and returns a buffer for it. The buffer has at most MaxMessage+1
// bytes. A message that fills so many bytes is too long: see decode. await makes the buffer after
// the wait, so that an idle worker has no buffer.
func (c *Conn) await() ([]byte, error) {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n int
	var peeked error
	err = raw.Read(func(fd uintptr) bool {
		n, peeked = pending(int(fd))
		return !errors.Is(peeked, unix.EAGAIN)
	})
	if err = errors.Join(err, os.NewSyscallError("recvfrom", peeked)); err != nil {
		return nil, err
	}
	return make([]byte, min(n, MaxMessage)+1), nil
}

// Receive waits for a message. It returns io.EOF if the other side has gone. The kernel drops
// descriptors that come with the message.
func (c *Conn) Receive(msg any) error {
	buf, err := c.await()
	if err != nil {
		return err
	}
	n, err := c.c.Read(buf)
	if err != nil {
		return err
	}
	return decode(buf[:n], msg)
}

// ReceiveConn is Receive for the worker. It also returns the connection that came with the message,
// or nil. The caller of ReceiveConn must close the connection. If the error is ErrNotTaken, msg is
// valid.
func (c *Conn) ReceiveConn(msg any) (*net.UnixConn, error) {
	buf, err := c.await()
	if err != nil {
		return nil, err
	}
	oob := make([]byte, unix.CmsgSpace(4)) // room for one descriptor
	n, oobn, flags, _, err := c.c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	conn, taken := connOf(oob[:oobn], flags)
	if taken != nil && !errors.Is(taken, ErrNotTaken) {
		return nil, taken
	}
	if err := decode(buf[:n], msg); err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, err
	}
	return conn, taken
}

// If a message is too long, or its JSON cannot be decoded, the error of Receive and ReceiveConn
// wraps ErrMessage.
var ErrMessage = errors.New("a message cannot be read")

func decode(b []byte, msg any) error {
	if len(b) > MaxMessage {
		return fmt.Errorf("%w: longer than the channel's %d bytes", ErrMessage, MaxMessage)
	}
	if err := json.Unmarshal(b, msg); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return nil
}

// connOf makes a connection of the one descriptor that a message may carry. It returns nil if there
// is no descriptor. After an error it has closed all descriptors of the message.
func connOf(oob []byte, flags int) (*net.UnixConn, error) {
	var fds []int
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	for _, m := range cmsgs {
		more, rightsErr := unix.ParseUnixRights(&m)
		fds, err = append(fds, more...), errors.Join(err, rightsErr)
	}
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0 && len(fds) == 0:
		// The kernel has cut a descriptor off, although oob has room for one. So the
		// process has no descriptor number free (recvmsg(2)).
		err = ErrNotTaken
	case flags&unix.MSG_CTRUNC != 0 || len(fds) > 1:
		err = errors.New("a message carries more than one descriptor")
	case len(fds) == 0:
		return nil, nil
	default:
		err = check(fds[0], unix.SOCK_STREAM)
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, err
	}
	conn, err := adopt(fds[0])
	// For its copy, adopt needs a second descriptor. If none is free, the connection is lost.
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		err = ErrNotTaken
	}
	return conn, err
}

// check returns an error if fd is not a Unix socket of the type want.
func check(fd, want int) error {
	domain, err := domainOf(fd)
	if err != nil {
		return err
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_TYPE", err)
	}
	if domain != unix.AF_UNIX || typ != want {
		return fmt.Errorf(
			"a socket of domain %d and type %d, not a Unix socket (%d) of type %d",
			domain, typ, unix.AF_UNIX, want)
	}
	return nil
}

// adopt makes a Go connection, non-blocking and close-on-exec, from fd. The connection has a copy
// of fd. adopt always closes fd, even after an error.
func adopt(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // FileConn makes a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
