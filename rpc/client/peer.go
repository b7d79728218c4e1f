package client

import (
	"errors"
	"fmt"
	"net"
	"os"

	"tlsd/internal/sockets"
)

// Peer is the process that made the socket, as the kernel knows it. That is the daemon, or the
// service manager that passed the socket to it; the process that serves the session is named by
// tls.Hello.
type Peer struct {
	PID      int // 0 where the system does not tell
	UID, GID uint32
}

// Peer tells who made the socket. It is the zero Peer if New made the client.
func (c *Client) Peer() Peer { return c.peer }

// StrangerError says that the socket is that of a user who is neither root nor the one that this
// process runs as, nor one of the trusted-users of ConfPath. Nothing was sent: paths, data and what
// comes back would be in the hands of that user.
type StrangerError struct {
	Path string
	Peer Peer
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("%s: refused, because the user with id %d runs it, who is neither root nor %d, nor one of trusted-users in %s", e.Path, e.Peer.UID, os.Geteuid(), ConfPath)
}

// trust fails for a socket of somebody who must not be talked to. read is ReadConf, but in tests.
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
