package supervisor

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// What a user has so much of (sessions, starts, audit lines) is counted by account. That is the
// user, but for those whom --allow-gid alone lets in: with subordinate users (subuid(5)) each of
// them has 65,536 numbers, all of which are in the group. So these are counted, in this order,
//
//   - as the user, if the user database has the number;
//   - as the user whom the number is subordinate to;
//   - as the group: all such callers of it together.
//
// Without cgo the user database is /etc/passwd. Users whom another one knows count as their group;
// --allow-uid lets them be counted by themselves.
type account uint64

const groupBit = 1 << 32

func userAccount(uid uint32) account  { return account(uid) }
func groupAccount(gid uint32) account { return account(gid) | groupBit }

func (a account) String() string {
	if a == strangers {
		return "strangers"
	}
	if a&groupBit != 0 {
		return fmt.Sprintf("group %d", uint32(a))
	}
	return fmt.Sprintf("user %d", uint32(a))
}

// field names the account in the log.
func (a account) field() zap.Field {
	if a == strangers {
		return zap.Skip()
	}
	if a&groupBit != 0 {
		return zap.Uint32("gid", uint32(a))
	}
	return zap.Uint32("uid", uint32(a))
}

// An accountant knows where users are found.
type accountant struct {
	known  func(uid uint32) bool
	subuid func() (io.ReadCloser, error)
	lookup func(name string) (uid uint32, ok bool)
}

var systemAccountant = accountant{
	known: func(uid uint32) bool {
		_, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
		return err == nil
	},
	subuid: func() (io.ReadCloser, error) { return os.Open("/etc/subuid") },
	lookup: func(name string) (uint32, bool) {
		u, err := user.Lookup(name)
		if err != nil {
			return parseID(name) // the file may have numbers
		}
		return parseID(u.Uid)
	},
}

func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err == nil
}

// strangers are all callers together who are not allowed, and whom no user database has.
const strangers account = groupBit << 1

// denied is the account of a caller whom the policy does not allow. It may have many numbers, too.
func (a accountant) denied(peer Peer) account {
	if a.known(peer.UID) {
		return userAccount(peer.UID)
	}
	if owner, ok := a.owner(peer.UID); ok {
		return userAccount(owner)
	}
	return strangers
}

// of is the account of a caller whom the policy allows.
func (a accountant) of(p Policy, peer Peer) account {
	if peer.UID == uint32(os.Geteuid()) || slices.Contains(p.UIDs, peer.UID) || a.known(peer.UID) {
		return userAccount(peer.UID)
	}
	if owner, ok := a.owner(peer.UID); ok {
		return userAccount(owner)
	}
	for _, gid := range p.GIDs {
		if peer.inGroup(gid) {
			return groupAccount(gid)
		}
	}
	return userAccount(peer.UID) // cannot be: the policy does not allow it
}

// owner is the user whom another is subordinate to: a line of the file is "owner:first:count".
func (a accountant) owner(uid uint32) (owner uint32, ok bool) {
	file, err := a.subuid()
	if err != nil {
		return 0, false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		field := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(field) != 3 {
			continue
		}
		first, err := strconv.ParseUint(field[1], 10, 32)
		count, err2 := strconv.ParseUint(field[2], 10, 32)
		if err == nil && err2 == nil && uint64(uid) >= first && uint64(uid)-first < count {
			if owner, ok := a.lookup(field[0]); ok {
				return owner, true
			}
		}
	}
	return 0, false
}
