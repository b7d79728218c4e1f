package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// people looks up a user in the user database of these tests.
func people(name string) (uint32, error) {
	uids := map[string]uint32{"alice": 1000, "1000": 1000, "bob": 1001, "7": 7}
	if uid, ok := uids[name]; ok {
		return uid, nil
	}
	return 0, fmt.Errorf("there is no user %q", name)
}

// A key in the table of a user replaces the same key of [default]. The other keys of [default]
// apply to the user too.
func TestAKeyOfAUserReplacesTheDefault(t *testing.T) {
	t.Parallel()
	f, err := parse([]byte(`
		[default]
		insecure-skip-verify = false
		min-tls = "1.3"
		listen = ["8443", 9443]
		destinations = ["example.com:443"]
		key-folders = ["/srv/keys/"]
		[user.alice]
		insecure-skip-verify = true
		listen = []
		[user.7]
		min-tls = "1.2"
		destinations = ["*:*"]
		key-folders = []
		ca-folders = ["/srv/ca"]
	`), people)
	if err != nil {
		t.Fatal(err)
	}
	preset := map[string]any{"insecure-skip-verify": false, "min-tls": "1.3",
		"listen":       []string{"8443", "9443"},
		"destinations": []string{"example.com:443"}, "key-folders": []string{"/srv/keys"}}
	alice := map[string]any{"insecure-skip-verify": true, "min-tls": "1.3",
		"listen":       []string{},
		"destinations": []string{"example.com:443"}, "key-folders": []string{"/srv/keys"}}
	seven := map[string]any{"insecure-skip-verify": false, "min-tls": "1.2",
		"listen":       []string{"8443", "9443"},
		"destinations": []string{"*:*"}, "key-folders": []string{},
		"ca-folders": []string{"/srv/ca"}}
	for uid, want := range map[uint32]map[string]any{0: preset, 1001: preset,
		1000: alice, 7: seven} {
		p := f.For(uid)
		if got := p.Keys(); !reflect.DeepEqual(got, want) {
			t.Errorf("the policy of user %d has the keys %v, want %v", uid, got, want)
		}
		// A worker gets the policy as JSON, which must not change it.
		b, err := json.Marshal(p)
		var q Policy
		if err == nil {
			err = json.Unmarshal(b, &q)
		}
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Errorf("user %d: the policy %+v, written as JSON and read again, is "+
				"%+v, %v; the JSON is %s", uid, p, q, err, b)
		}
	}
	if uids, names := f.Users(); !reflect.DeepEqual(uids, []uint32{7, 1000}) ||
		names[1000] != "alice" {
		t.Errorf("Users returns %v, %v; want 7, and 1000 with the name alice", uids, names)
	}
	var none *File
	empty, err := parse([]byte("[default]"), people)
	if err != nil || len(none.For(3).Keys())+len(empty.For(3).Keys()) != 0 {
		t.Errorf("without a file: %v; with an empty table: %v, %v; want no rules",
			none.For(3), empty.For(3), err)
	}
}

func TestBadFilesAreRefusedWithTheLine(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "%q,", fmt.Sprintf("host%d.example.com:443", i))
	}
	tooMany := "destinations = [" + many.String() + "]\n"
	for text, want := range map[string]string{
		"[default]\nmin-tsl = \"1.3\"\n": "2: default.min-tsl is not known; there are",
		"[default]\n\n[group.x]\n":       "3: group.x is not known",
		"x = 1\n[default]\n":             "1: x is not known",
		"[default]\nmin-tls = \"1.1\"\n": `2: default.min-tls: "1.1": want "1.2" or "1.3"`,
		"[default]\ninsecure-skip-verify = \"no\"\n": "2: default.insecure-skip-verify: " +
			"cannot decode TOML string here: it is of the wrong type",
		"[default]\ninsecure-skip-verify = 0\n": "wrong type",
		"[user.alice]\nlisten = \"80\"\n": "2: user.alice.listen: cannot decode TOML " +
			"string here",
		"[user.alice]\nlisten = [\n\"80\",\n\"eighty\"]\n": `4: user.alice.listen: "eighty": ` +
			`ports "eighty": want`,
		"[user.alice]\nlisten = [0]\n": `"0": ports "0": want`,

		"[default]\ndestinations = [\"example.com\"]\n": `2: default.destinations: "example.com": want HOST:PORTS`,
		"[default]\nkey-folders = [\"keys\"]\n":         `2: default.key-folders: "keys": want the absolute path`,
		"[default]\nca-folders = [\"keys\"]\n":          `2: default.ca-folders: "keys": want the absolute path`,

		"[default\n":                                    "1: ",
		"[default]\nlisten = [\"80\"\n":                 ": ",
		"[default]\nmin-tls=\"1.2\"\nmin-tls=\"1.3\"\n": "3: ",
		"[default]\n[default]\n":                        "2: ",

		"[default]\nMin-TLS = \"1.3\"\n": "Min-TLS: keys are written in lower case",
		"[user.alice]\nListen = []\n":    "Listen: keys are written in lower case",
		"[Default]\n":                    "Default: keys are written in lower case",
		"[user.carol]\n":                 `[user.carol]: there is no user "carol"`,
		"[user.alice]\n[user.1000]\n":    "[user.1000] and [user.alice] are both user 1000",
		"":                               " it has no table; write [default]",
		"# all is lost\n":                " it has no table; write [default]",
		"user = 3\n":                     "1: user: cannot decode TOML integer here",
		"[default]\n" + tooMany:          "[default]: this policy takes",
		"[user.bob]\n" + tooMany:         "[user.bob]: this policy takes",
		"\xff\xfe":                       "1: ",
		"[default]\nmin-tls = \"1.3\"\n[default.listen]\nx = 1\n": ": ",
	} {
		if _, err := parse([]byte(text), people); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("the file %.60q gives the error %v; want %q", text, err, want)
		}
	}
}

func TestTheExampleIsGood(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../examples/policy.toml")
	if err != nil {
		t.Fatal(err)
	}
	f, err := parse(text, func(name string) (uint32, error) {
		return map[string]uint32{"www-data": 33, "1000": 1000}[name], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if keys := f.Default().Keys(); len(keys) != 6 {
		t.Errorf("the example has the keys %v; want all 6", keys)
	}
	if f.For(33).MayListenOnPort(9000) || !f.For(33).MayListenOnPort(443) ||
		f.For(33).MaySkipVerify() || !f.For(1000).MaySkipVerify() {
		t.Error("in the example, a key of a user does not replace the key of [default]")
	}
}

func TestUsersAreLookedUp(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"root": "", "0": "", "4294967294": "",
		"4294967295": "cannot be the number", "4294967296": "cannot be the number",
		"": "cannot be", "no such user": "there is no user",
		"-1": "there is no user"} {
		_, err := lookup(name)
		if (err == nil) != (want == "") || err != nil &&
			!strings.Contains(err.Error(), want) {
			t.Errorf("the user %q: error %v, want %q", name, err, want)
		}
	}
	if uid, err := lookup("root"); uid != 0 || err != nil {
		t.Errorf("lookup of root returns %d, %v; want user 0", uid, err)
	}
}

// Load accepts a policy file only if the file is complete, and if only the administrator can change
// it. Each error names the file.
func TestOnlyTheAdministratorMayChangeTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("[default]\nmin-tls=\"1.3\"\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", 0o644)
	if err := os.Symlink(good, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{good, file("private", 0o400), filepath.Join(dir, "link")} {
		if f, err := Load(path); err != nil || f.For(1).MinTLS.String() != "1.3" {
			t.Errorf("Load of %s: error %v; want none, and min-tls 1.3", path, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	big := file("big", 0o600)
	if err := os.Truncate(big, maxFile+1); err != nil {
		t.Fatal(err)
	}
	bad := file("bad", 0o600)
	if err := os.WriteFile(bad, []byte("\n[defualt]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty, cut := file("empty", 0o600), file("cut", 0o600)
	for path, size := range map[string]int64{empty: 0, cut: int64(len("[default]\nmin-tls"))} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "it is not a regular file",
		fifo:                       "it is not a regular file",
		"/dev/null":                "it is not a regular file",
		file("group", 0o620): "its mode is 0620, so that users besides its owner can " +
			"change it",
		file("others", 0o602): "its mode is 0602",
		big:                   "it has more than 1048576 bytes",
		bad:                   bad + ":2: defualt is not known",
		empty:                 empty + ": it has no table",
		cut:                   cut + ": it has no line feed at its end; was the file cut",
	}
	if os.Getuid() == 0 {
		foreign := file("foreign", 0o600)
		if err := os.Chown(foreign, 1234, 0); err != nil {
			t.Fatal(err)
		}
		cases[foreign] = "it belongs to user 1234, who could change it"
	}
	for path, want := range cases {
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("Load of %s: error %v; want the path and %q", path, err, want)
		}
	}
}
