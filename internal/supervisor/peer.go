package supervisor

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"tlsd/internal/confine"
	"tlsd/internal/sockets"
)

// Peer describes the process that connected, as the kernel noted it at that moment. PID is
// only for the log and the list of sessions, because another process may have the number by now.
type Peer struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	PID      int32

	as *account // the account whose limits hold for the caller; nil: the account of user UID
}

// peerOf asks the kernel for the process that connected.
func peerOf(conn *net.UnixConn) (Peer, error) {
	who, err := sockets.PeerOf(conn)
	if err != nil {
		return Peer{}, fmt.Errorf("the caller's credentials: %w", err)
	}
	groups, err := groupsOf(conn, who.UID)
	if err != nil {
		return Peer{}, fmt.Errorf("the groups of caller %d: %w", who.UID, err)
	}
	return Peer{UID: who.UID, GID: who.GID, Groups: groups, PID: int32(who.PID)}, nil
}

// account is the account whose limits hold for the caller.
func (p Peer) account() account {
	if p.as != nil {
		return *p.as
	}
	return userAccount(p.UID)
}

// policyUser is the user whose policy holds for the caller. Usually this user is the caller. If the
// caller is a subordinate user (subuid(5)), its account may be the account of its owner
// (account.go). Then policyUser is the owner. The account of a group has no policy. So if the
// caller has such an account, policyUser is the caller.
func (p Peer) policyUser() uint32 {
	if a := p.account(); a&groupBit == 0 {
		return uint32(a)
	}
	return p.UID
}

func (p Peer) inGroup(gid uint32) bool { return gid == p.GID || slices.Contains(p.Groups, gid) }

// Policy says which users may connect. The daemon's own user always may.
type Policy struct {
	UIDs []uint32
	GIDs []uint32 // members may connect, also those for whom the group is only supplementary
}

// Allows returns nil if the peer may connect. The text of the error is for the peer.
func (p Policy) Allows(peer Peer) error {
	own := uint32(os.Geteuid())
	if len(peer.Groups) > confine.MaxGroups && peer.identity() != nil {
		return fmt.Errorf("user %d is in %d groups; tlsd gives a worker at most %d; "+
			"leave some groups, and connect again", peer.UID, len(peer.Groups),
			confine.MaxGroups)
	}
	if peer.UID == own || slices.Contains(p.UIDs, peer.UID) ||
		slices.ContainsFunc(p.GIDs, peer.inGroup) {
		return nil
	}
	return fmt.Errorf("user %d may not use this tlsd, which serves %s; its administrator can "+
		"allow more with --allow-uid and --allow-gid", peer.UID, p.describe(own))
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

// identity is the user that this caller's worker becomes, or nil for the daemon's own user. Only a
// daemon of root can change the user of a worker. Workers of any other daemon have the daemon's own
// user for all callers.
func (p Peer) identity() *confine.Identity {
	if own := uint32(os.Geteuid()); own != 0 || p.UID == own {
		return nil
	}
	return &confine.Identity{UID: p.UID, GID: p.GID, Groups: p.Groups}
}
