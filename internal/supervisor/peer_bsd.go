//go:build darwin || freebsd

package supervisor

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel for the peer's user and groups (LOCAL_PEERCRED, unix(4)). The answer lacks
// the pid, and has at most 16 groups.
func peerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Xucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return Peer{}, fmt.Errorf("the caller's credentials: %w", err)
	}
	n := min(max(int(cred.Ngroups), 1), len(cred.Groups))
	return Peer{UID: cred.Uid, GID: cred.Groups[0], Groups: cred.Groups[1:n]}, nil
}
