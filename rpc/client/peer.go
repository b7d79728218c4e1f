package client

import (
	"errors"
	"fmt"
	"net"
	"os"

	"tlsd/internal/sockets"
)

// A Peer is the process that made the socket, as the kernel knows it. It is the daemon, or the
// service manager that passed the socket to the daemon. Another process, the worker, serves the
// session. Its PID is in the answer to tls.Hello.
type Peer struct {
	PID      int // 0 if the system does not report it
	UID, GID uint32
}

// Peer returns the process that made the socket. It is the zero Peer if New made the client.
func (c *Client) Peer() Peer { return c.peer }

// A StrangerError says that the socket belongs to a user whom this process does not trust. This
// process trusts root, its own user, and the trusted-users of the file at ConfPath. Any other user
// could read and change all data of the session. So the client has sent nothing.
type StrangerError struct {
	Path string
	Peer Peer
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("%s: refused, because user %d has made the socket; user %d is not "+
		"root, not the user of this process (user %d), and not in trusted-users of %s",
		e.Path, e.Peer.UID, e.Peer.UID, os.Geteuid(), ConfPath)
}

// checkTrusted fails if the socket at path belongs to a user who is not trusted. read() is
// ReadConf, except in tests.
func (p Peer) checkTrusted(path string, euid int, read func() (Conf, error)) error {
	if p.UID == 0 || int(p.UID) == euid {
		return nil
	}
	conf, err := read()
	if err == nil && conf.trusts(p.UID) {
		return nil
	}
	stranger := &StrangerError{path, p}
	if err != nil {
		return errors.Join(stranger, err)
	}
	return stranger
}

func peerOf(conn *net.UnixConn) (Peer, error) {
	peer, err := sockets.PeerOf(conn)
	return Peer(peer), err
}
