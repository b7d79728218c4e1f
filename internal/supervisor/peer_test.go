package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/confine"
	"tlsd/internal/testkit"
)

// The policy allows the daemon's own user, the listed users, and members of the listed groups. Its
// refusal names the users and groups that it allows.
func TestPolicy(t *testing.T) {
	t.Parallel()
	own := uint32(os.Geteuid())
	other := own + 1000
	tooMany := "" // only root's daemon gives groups to workers, and limits their number
	if own == 0 {
		tooMany = "4097 groups"
	}
	tests := []struct {
		name   string
		policy Policy
		peer   Peer
		want   string // a part of the refusal; "": the peer is allowed
	}{
		{"own user", Policy{}, Peer{UID: own, GID: 5}, ""},
		{"own user, though others are listed", Policy{UIDs: []uint32{other}},
			Peer{UID: own}, ""},
		{"another user", Policy{}, Peer{UID: other}, "may not use this tlsd"},
		{"its group is not its user", Policy{}, Peer{UID: other, GID: own,
			Groups: []uint32{own}}, "may not use this tlsd"},
		{"listed user", Policy{UIDs: []uint32{7, other}}, Peer{UID: other}, ""},
		{"another than listed", Policy{UIDs: []uint32{7}},
			Peer{UID: other, GID: 7, Groups: []uint32{7}}, ", 7;"},
		{"primary group", Policy{GIDs: []uint32{42}}, Peer{UID: other, GID: 42}, ""},
		{"supplementary group", Policy{GIDs: []uint32{41, 42}},
			Peer{UID: other, GID: 1, Groups: []uint32{2, 42}}, ""},
		{"in more groups than a worker can be given", Policy{UIDs: []uint32{other}},
			Peer{UID: other, Groups: make([]uint32, confine.MaxGroups+1)}, tooMany},
		{"no such group", Policy{GIDs: []uint32{42}},
			Peer{UID: other, GID: 1, Groups: []uint32{2}}, "and group 42"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.policy.Allows(tt.peer)
			got := fmt.Sprint(err)
			if (err == nil) != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("Allows returns %v; want %q in it (empty: no error)", err,
					tt.want)
			}
		})
	}
}

// askAs opens a session as another user, in a process of its own. It asks "who", and returns the
// daemon's answer.
func (d *daemon) askAs(uid, gid uint32, groups ...uint32) string {
	d.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"DIAL_AND_ASK=" + d.path}
	cmd.Dir = "/"
	as := syscall.Credential{Uid: uid, Gid: gid, Groups: groups}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &as}
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("as user %d: %v: %s", uid, err, out)
	}
	return string(out)
}

// A caller that the policy denies is told so, and the audit log has a line. An allowed caller gets
// a worker that runs as the caller's user, with its group and all its other groups.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to call as other users")
	}
	t.Parallel()
	for _, shared := range []bool{false, true} {
		d := startDaemon(t, workerPlay{}, func(c *Config) {
			c.Shared = shared
			c.Policy = Policy{UIDs: []uint32{1234}, GIDs: []uint32{77}}
		})
		testkit.Must(t, os.Chmod(filepath.Dir(d.path), 0o755))
		testkit.Must(t, os.Chmod(d.path, 0o666))

		denied := d.askAs(4321, 4321, 9)
		if !strings.Contains(denied, `"id":null`) || !strings.Contains(denied, `"code":-32012`) || !strings.Contains(denied, `"kind":"denied"`) || !strings.Contains(denied, "user 4321 may not") {
			t.Errorf("user 4321 is told %s; want an error with the id null, the code "+
				"-32012, the kind denied, and the user", denied)
		}
		if f := d.logged("denied", 1); f["uid"] != uint32(4321) ||
			f["gid"] != uint32(4321) || f["method"] != "connect" ||
			f["asked"] != d.path {
			t.Errorf("the audit line of user 4321 has %v; want user and group 4321, "+
				"the method connect, and the socket", f)
		}
		if n := d.logs.FilterMessage("session started").Len(); n != 0 {
			t.Errorf("a denied caller has got %d sessions", n)
		}

		for _, tt := range []struct {
			uid, gid uint32
			groups   []uint32
			want     string
		}{
			{1234, 1235, []uint32{8, 9}, " uid=1234 gid=1235 groups=[8 9] "},
			{1234, 1235, nil, " uid=1234 gid=1235 groups=[] "},
			{2222, 77, []uint32{5}, " uid=2222 gid=77 groups=[5] "},
			{2222, 2222, []uint32{76, 77}, " uid=2222 gid=2222 groups=[76 77] "},
		} {
			got := d.askAs(tt.uid, tt.gid, tt.groups...)
			if !strings.Contains(got, tt.want) {
				t.Errorf("a session of user %d, group %d, groups %v has the "+
					"worker %q; want %q",
					tt.uid, tt.gid, tt.groups, got, tt.want)
			}
		}
		if got := d.dial().ask("who"); !strings.Contains(got, " uid=0 ") {
			t.Errorf("root's session has the worker %q; want user 0", got)
		}
		many := make([]uint32, 300)
		for i := range many {
			many[i] = uint32(1000 + i)
		}
		if got := d.askAs(1234, 1, many...); !strings.Contains(got, " 1298 1299]") {
			t.Errorf("a caller with 300 groups has the worker %q; want all 300 groups",
				got)
		}
	}
}
