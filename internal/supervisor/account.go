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

// Each account has its own limits of sessions, of starts of workers and of log lines. Usually a
// caller's account is its user. Callers that only --allow-gid allows are an exception. A member of
// the group may have 65,536 subordinate users (subuid(5)), which are in the group, too. If each had
// an account, the member would have 65,536 times the limit. So the account of a caller that only
// --allow-gid allows is the first of these that exists:
//
//   - the user, if the user database has its number;
//   - the user to whom the number is subordinate;
//   - the group, which is one account for all of its remaining callers.
//
// Without cgo the user database is only /etc/passwd. So users of other databases, such as LDAP, are
// not found, and share the account of their group. A user that --allow-uid names has an account of
// its own.
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

// field is the log field that names the account.
func (a account) field() zap.Field {
	if a == strangers {
		return zap.Skip()
	}
	if a&groupBit != 0 {
		return zap.Uint32("gid", uint32(a))
	}
	return zap.Uint32("uid", uint32(a))
}

// An accountant finds the account of a caller. Its fields are functions that read the user database
// and /etc/subuid, so that tests can replace these functions.
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

// strangers is one account for many callers: --allow-uid and --allow-gid do not admit them, and
// neither the user database nor /etc/subuid has their numbers.
const strangers account = groupBit << 1

// denied is the account of a caller that may not connect. The first two choices are those in the
// list above type account. If neither exists, the account is strangers.
func (a accountant) denied(peer Peer) account {
	if a.known(peer.UID) {
		return userAccount(peer.UID)
	}
	if owner, ok := a.owner(peer.UID); ok {
		return userAccount(owner)
	}
	return strangers
}

// allowed is the account of a caller that may connect.
func (a accountant) allowed(p Policy, peer Peer) account {
	if peer.UID == uint32(os.Geteuid()) || slices.Contains(p.UIDs, peer.UID) ||
		a.known(peer.UID) {
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
	return userAccount(peer.UID) // unreachable: a case above covers each allowed caller
}

// owner is the user to whom uid is subordinate. A line of the file is "owner:first:count".
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
