package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tlsd/internal/confine"
)

// Peer is who connected, as the kernel noted it at that moment. The pid may have
// been given to another process since, and is for the log only.
type Peer struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	PID      int32

	as *account // whom it counts as; nil: its user
}

// account is whom the caller counts as.
func (p Peer) account() account {
	if p.as != nil {
		return *p.as
	}
	return userAccount(p.UID)
}

// judged is the user by whose policy the caller is judged.
func (p Peer) judged() uint32 {
	if a := p.account(); a&groupBit == 0 {
		return uint32(a)
	}
	return p.UID
}

func (p Peer) inGroup(gid uint32) bool { return gid == p.GID || slices.Contains(p.Groups, gid) }

// Policy says who may connect. The daemon's own user always may.
type Policy struct {
	UIDs []uint32
	GIDs []uint32 // of the caller's primary or supplementary groups
}

// Allows decides. The error is for the caller to read.
func (p Policy) Allows(peer Peer) error {
	own := uint32(os.Geteuid())
	if len(peer.Groups) > confine.MaxGroups && peer.identity() != nil {
		return fmt.Errorf("user %d is in %d groups, more than tlsd gives a worker (%d); leave some before connecting", peer.UID, len(peer.Groups), confine.MaxGroups)
	}
	if peer.UID == own || slices.Contains(p.UIDs, peer.UID) || slices.ContainsFunc(p.GIDs, peer.inGroup) {
		return nil
	}
	return fmt.Errorf("user %d may not use this tlsd, which serves %s; its administrator can allow more with --allow-uid and --allow-gid", peer.UID, p.describe(own))
}

func (p Policy) describe(own uint32) string {
	list := func(name string, ids []uint32) string {
		var b strings.Builder
		for i, id := range ids {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(strconv.FormatUint(uint64(id), 10))
		}
		return name + " " + b.String()
	}
	s := list("user", append([]uint32{own}, p.UIDs...))
	if len(p.GIDs) > 0 {
		s += list(" and group", p.GIDs)
	}
	return s
}

// peerOf asks the kernel who connected (SO_PEERCRED and SO_PEERGROUPS, unix(7) and
// socket(7)).
func peerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var groups []uint32
	var groupsErr error
	ctlErr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			groups, groupsErr = peerGroups(int(fd))
		}
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return Peer{}, fmt.Errorf("the caller's credentials: %w", err)
	}
	if errors.Is(groupsErr, unix.ENOPROTOOPT) { // Linux before 4.13
		groups, groupsErr = groupsOfUser(cred.Uid)
	}
	if groupsErr != nil {
		return Peer{}, fmt.Errorf("the groups of caller %d: %w", cred.Uid, groupsErr)
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, Groups: groups, PID: cred.Pid}, nil
}

func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// groupsOfUser looks the groups up in the user database. Somebody who is not in
// it has none.
func groupsOfUser(uid uint32) ([]uint32, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if errors.As(err, new(user.UnknownUserIdError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, name := range names {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}

// identity is what the worker of this caller becomes: nil for the daemon's
// own, else the caller's. Only root can give a process another; the
// daemon of an ordinary user acts for callers it allows with its own rights.
func (p Peer) identity() *confine.Identity {
	if own := uint32(os.Geteuid()); own != 0 || p.UID == own {
		return nil
	}
	return &confine.Identity{UID: p.UID, GID: p.GID, Groups: p.Groups}
}
