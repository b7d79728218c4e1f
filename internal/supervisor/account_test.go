package supervisor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// subuid has the form of /etc/subuid. A good line is "owner:first:count": the owner has count
// subordinate users, whose numbers begin with first.
const subuid = `# none
alice:100000:65536

bob:165536:10
1001:200000:1
nobody knows:300000:9
bad:x:1
alice:4294967295:4294967295
`

// A subordinate user that neither the user database nor --allow-uid names counts towards the limits
// of its owner. If the owner is not known, the user counts towards the limits of its group. If the
// policy also denies the user, it is a stranger. All strangers together have one limit.
func TestSubordinateUsersCountAsTheirOwner(t *testing.T) {
	t.Parallel()
	a := accountant{
		known: func(uid uint32) bool { return uid == 1000 || uid == 1001 },
		subuid: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(subuid)), nil
		},
		lookup: func(name string) (uint32, bool) {
			switch name {
			case "alice":
				return 1000, true
			case "bob":
				return 0, true // root can be an owner, too
			}
			return parseID(name)
		},
	}
	p := Policy{UIDs: []uint32{100001, 7}, GIDs: []uint32{50, 60}}
	for _, c := range []struct {
		name string
		peer Peer
		want string
	}{
		{"in the user database", Peer{UID: 1000, GID: 50}, "user 1000"},
		{"of --allow-uid, although it is subordinate", Peer{UID: 100001, GID: 1},
			"user 100001"},
		{"of --allow-uid", Peer{UID: 7}, "user 7"},
		{"the first subordinate", Peer{UID: 100000, GID: 50}, "user 1000"},
		{"the last", Peer{UID: 165535, GID: 9, Groups: []uint32{60}}, "user 1000"},
		{"the first of the next owner", Peer{UID: 165536, GID: 50}, "user 0"},
		{"of an owner that is a number", Peer{UID: 200000, GID: 50}, "user 1001"},
		{"beyond", Peer{UID: 200001, GID: 9, Groups: []uint32{50}}, "group 50"},
		{"of an unknown owner", Peer{UID: 300000, GID: 60}, "group 60"},
		{"unknown", Peer{UID: 5000, GID: 60, Groups: []uint32{50}}, "group 50"},
		{"the highest", Peer{UID: 4294967294, GID: 60}, "group 60"},
	} {
		if got := a.allowed(p, c.peer).String(); got != c.want {
			t.Errorf("a caller (%s) counts as %s; want %s", c.name, got, c.want)
		}
	}
	for uid, want := range map[uint32]string{1000: "user 1000", 100005: "user 1000",
		5000: "strangers", 300000: "strangers"} {
		if got := a.denied(Peer{UID: uid}).String(); got != want {
			t.Errorf("the denied user %d counts as %s; want %s", uid, got, want)
		}
	}
	a.subuid = func() (io.ReadCloser, error) { return nil, errors.New("there is none") }
	if got := a.allowed(p, Peer{UID: 100000, GID: 50}).String(); got != "group 50" {
		t.Errorf("without /etc/subuid a subordinate user counts as %s; want group 50", got)
	}
}

// Callers of an allowed group that are not in the user database share one limit of sessions.
func TestCallersOfAGroupAreCountedTogether(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to call as other users")
	}
	t.Parallel()
	const gid, first = 61500, 61501
	d := startDaemon(t, workerPlay{}, func(c *Config) {
		c.Policy, c.MaxSessionsPerUID = Policy{GIDs: []uint32{gid}}, 2
	})
	testkit.Must(t, os.Chmod(filepath.Dir(d.path), 0o755))
	testkit.Must(t, os.Chmod(d.path, 0o666))
	for n := range uint32(2) {
		d.dialAs(first+n, gid)
	}
	d.logged("session started", 2)
	if got := d.askAs(first+2, gid); !strings.Contains(got, `"kind":"limit"`) || !strings.Contains(got, "sessions of group 61500 are open") {
		t.Errorf("the group has its 2 sessions, and a third user is told %s", got)
	}
	d.dial().pid() // the daemon's own user does not count towards the group's limit
}
