package supervisor

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

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

// identity is what the worker of this caller becomes: nil for the daemon's
// own, else the caller's. Only root can give a process another; the
// daemon of an ordinary user acts for callers it allows with its own rights.
func (p Peer) identity() *confine.Identity {
	if own := uint32(os.Geteuid()); own != 0 || p.UID == own {
		return nil
	}
	return &confine.Identity{UID: p.UID, GID: p.GID, Groups: p.Groups}
}
