package tlsd

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// The daemon applies the administrator's policy to scripts, and logs what it denies.

// A ruled is a daemon with a policy.
type ruled struct {
	t         *testing.T
	sock, log string
	policy    string // the policy's path
	daemon    *os.Process
}

// startRuled starts a daemon with this policy. Its log has only errors and audit lines.
func startRuled(t *testing.T, policy string, flags ...string) *ruled {
	t.Helper()
	dir := testkit.Dir(t)
	r := &ruled{t: t, sock: filepath.Join(dir, "s"), log: filepath.Join(dir, "log"),
		policy: filepath.Join(dir, "policy.toml")}
	r.write(policy)
	cmd := startWith(t, nil, "exec 2>"+r.log+";",
		append([]string{"--socket", r.sock, "--policy", r.policy, "--log-level", "error",
			"--log-format", "json"}, flags...)...)
	r.daemon = cmd.Process
	return r
}

func (r *ruled) write(policy string) {
	r.t.Helper()
	if err := os.WriteFile(r.policy, []byte(policy), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// reload makes the daemon read the policy again, and waits until the log has the text in the
// parameter says.
func (r *ruled) reload(says string) {
	r.t.Helper()
	if err := r.daemon.Signal(unix.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	untilLogged(r.t, r.log, says, func(text string) bool {
		return strings.Contains(text, says)
	})
}

// A line has the parts of a log line that the tests check.
type line struct {
	Logger, Msg, Method, Asked, Key string
	UID, GID                        uint32
	PID                             int
	Session, Missed                 uint64
}

// audit waits until the log has at least n audit lines, and returns all audit lines.
func (r *ruled) audit(n int) (lines []line) {
	r.t.Helper()
	untilLogged(r.t, r.log, fmt.Sprintf("%d audit lines", n), func(text string) bool {
		lines = nil
		for raw := range strings.Lines(text) {
			var l line
			if json.Unmarshal([]byte(raw), &l) == nil && l.Logger == "audit" {
				lines = append(lines, l)
			}
		}
		return len(lines) >= n
	})
	return lines
}

// request returns a call as a line of JSON-RPC.
func request(id int, method string, params ...any) string {
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "method": method,
		"params": append([]any{}, params...)})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// tlsServer starts a server that does handshakes with TLS versions up to max, until the test ends.
// It returns the port.
func tlsServer(t *testing.T, cert *testcert.Cert, max uint16) int {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{cert.TLS()}, MaxVersion: max})
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-gone })
	go func() {
		defer close(gone)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(testkit.Patience))
				if c.(*tls.Conn).Handshake() == nil {
					c.Read(make([]byte, 1))
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// put makes a copy that every user may read, and returns the path of the copy.
func put(t *testing.T, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestPolicyRefusesAndAllows(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Localhost(t)
	dir := testkit.Dir(t)
	keys := filepath.Join(dir, "keys")
	if err := os.Mkdir(keys, 0o755); err != nil {
		t.Fatal(err)
	}
	certIn, keyIn, caIn := put(t, cert.CertFile, keys+"/cert"),
		put(t, cert.KeyFile, keys+"/key"), put(t, ca.File, keys+"/ca")
	keyOut, caOut := put(t, cert.KeyFile, dir+"/key"), put(t, ca.File, dir+"/ca")
	sly := keys + "/sly" // in an allowed folder, but a link to a file outside of it
	if err := os.Symlink(keyOut, sly); err != nil {
		t.Fatal(err)
	}
	recent, old := tlsServer(t, cert, tls.VersionTLS13), tlsServer(t, cert, tls.VersionTLS12)
	free := testkit.Port(t)
	r := startRuled(t, fmt.Sprintf(`
		[default]
		insecure-skip-verify = false
		min-tls = "1.3"
		listen = ["127.0.0.1:%d"]
		destinations = ["127.0.0.0/8:%d", "localhost:%d"]
		key-folders = [%q]
		ca-folders = [%q]
	`, free, recent, old, keys, keys))
	conn, in, _ := connect(t, r.sock)
	type asked struct{ method, what, key string }
	var want []asked
	for i, tc := range []struct {
		line string
		want string // in the answer
		asked
	}{
		{request(1, "tls.SetCaBundle", caOut), `"kind":"denied"`,
			asked{"tls.SetCaBundle", caOut, "ca-folders"}},
		{request(1, "tls.SetCaBundle", caIn), `"result":0`, asked{}},
		{request(1, "tls.NewClient", "127.0.0.1", recent), `"result":1`, asked{}},
		{request(1, "tls.SetInsecureSkipVerify", 1, 1), `"kind":"denied"`,
			asked{"tls.SetInsecureSkipVerify", testkit.Addr(recent),
				"insecure-skip-verify"}},
		{request(1, "tls.LastError"), "turning off the verification of 127.0.0.1:" +
			strconv.Itoa(recent) + " is not allowed by the administrator's policy " +
			"(insecure-skip-verify)", asked{}},
		{request(1, "tls.SetInsecureSkipVerify", 1, 0), `"result":0`, asked{}},
		{request(1, "tls.Handshake", 1), `"result":0`, asked{}},
		{request(1, "tls.NewClient", "127.0.0.1", old), `"kind":"denied"`,
			asked{"tls.NewClient", testkit.Addr(old), "destinations"}},
		{request(1, "tls.NewClient", "localhost", old), `"result":3`, asked{}},
		{request(1, "tls.Handshake", 3), `"kind":"denied"`,
			asked{"tls.Handshake", fmt.Sprint("localhost:", old), "min-tls"}},
		{request(1, "tls.NewClient", "host.invalid", old), `"kind":"denied"`,
			asked{"tls.NewClient", fmt.Sprint("host.invalid:", old), "destinations"}},
		{request(1, "tls.NewServerContext", certIn, keyOut), `"kind":"denied"`,
			asked{"tls.NewServerContext", keyOut, "key-folders"}},
		{request(1, "tls.NewServerContext", certIn, sly), `"kind":"denied"`,
			asked{"tls.NewServerContext", sly, "key-folders"}},
		{request(1, "tls.NewServerContext", certIn, keys+"/../key"), `"kind":"denied"`,
			asked{"tls.NewServerContext", keys + "/../key", "key-folders"}},
		{request(1, "tls.NewServerContext", certIn, keyIn), `"result":8`, asked{}},
		{request(1, "tls.Accept", 8, "127.0.0.2", free), `"kind":"denied"`,
			asked{"tls.Accept", fmt.Sprint("127.0.0.2:", free), "listen"}},
		{request(1, "tls.Accept", 8, "127.0.0.1", recent), `"kind":"denied"`,
			asked{"tls.Accept", testkit.Addr(recent), "listen"}},
		{request(2, "tls.Accept", 8, "127.0.0.1", free) + "\n" +
			request(1, "tls.CloseServerContext", 8), `"kind":"cancelled"`, asked{}},
	} {
		got := exchange(t, conn, in, tc.line)
		if strings.Contains(tc.line, "\n") { // two calls, answered in any order
			second, _ := in.ReadString('\n')
			got += second
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("call %d, %s\nis answered with %swant %s", i, tc.line, got,
				tc.want)
		}
		if tc.method != "" {
			want = append(want, tc.asked)
			if !strings.Contains(got, "administrator's policy ("+tc.key+")") {
				t.Errorf("call %d: the error does not name the policy's key %s: %s",
					i, tc.key, got)
			}
		}
	}
	lines := r.audit(len(want))
	var got []asked
	for _, l := range lines {
		got = append(got, asked{l.Method, l.Asked, l.Key})
		if l.Msg != "denied" || int(l.UID) != os.Getuid() || int(l.GID) != os.Getgid() ||
			l.PID != os.Getpid() || l.Session != 1 {
			t.Errorf("an audit line has the wrong message, caller or session: %+v", l)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("audit lines\n%q\nwant\n%q", got, want)
	}
	if text, _ := os.ReadFile(r.log); bytes.Contains(text, []byte("PRIVATE")) ||
		bytes.Contains(text, []byte("session started")) {
		t.Errorf("the log has a private key, or entries below the level error: %s", text)
	}
}

// If a script turns verification off, the log has an audit line, even at the level error, and even
// if the policy says nothing about verification.
func TestSkippingVerificationIsAnAuditLine(t *testing.T) {
	t.Parallel()
	port := tlsServer(t, testcert.SelfSigned(t, testcert.Leaf{CN: "x"}), tls.VersionTLS13)
	for _, flags := range [][]string{nil, {"--isolation=shared"}} {
		r := startRuled(t, "[default]\n", flags...)
		conn, in, _ := connect(t, r.sock)
		exchange(t, conn, in, request(1, "tls.NewClient", "127.0.0.1", port))
		if got := exchange(t, conn, in, request(2, "tls.SetInsecureSkipVerify", 1,
			1)); !strings.Contains(got, `"result":0`) {
			t.Fatalf("tls.SetInsecureSkipVerify must succeed: %s", got)
		}
		if got := exchange(t, conn, in, request(3, "tls.Handshake", 1)); !strings.Contains(
			got, `"result":0`) {
			t.Errorf("tls.Handshake without verification must succeed: %s", got)
		}
		if l := r.audit(1); len(l) != 1 || l[0].Msg != "insecure-skip-verify" ||
			l[0].Method != "tls.SetInsecureSkipVerify" ||
			l[0].Asked != testkit.Addr(port) || l[0].Session != 1 {
			t.Errorf("want one audit line about the skipped verification; got %+v", l)
		}
	}
}

// A script makes forbidden calls in a loop. The log has audit lines for some of the calls, and the
// number of the other calls.
func TestFloodOfAuditLinesIsCounted(t *testing.T) {
	t.Parallel()
	r := startRuled(t, "[default]\nca-folders = []\n")
	conn, in, _ := connect(t, r.sock)
	const calls = 2000
	go func() {
		for i := range calls {
			if _, err := fmt.Fprintln(conn,
				request(i, "tls.SetCaBundle", "/a\nb\u202e")); err != nil {
				return
			}
		}
		conn.CloseWrite()
	}()
	answers := 0
	for in := in; ; answers++ {
		l, err := in.ReadString('\n')
		if err != nil {
			break
		}
		if !strings.Contains(l, `"kind":"denied"`) {
			t.Fatalf("a forbidden call is answered with %s, want kind denied", l)
		}
	}
	if answers != calls {
		t.Fatalf("tlsd has answered %d calls, want %d", answers, calls)
	}
	var told uint64
	for n := 1; told < calls; n++ { // the line with the final number follows the session's end
		lines := r.audit(n)
		told = 0
		for _, l := range lines {
			told += l.Missed
			if l.Msg == "denied" {
				told++
				if l.Asked != `/a\nb\u202e` {
					t.Fatalf("an audit line must escape control "+
						"characters: %+v", l)
				}
			}
		}
		n = len(lines)
	}
	if lines := r.audit(1); told != calls || len(lines) > calls/4 {
		t.Errorf("%d audit lines account for %d denied calls; want at most %d lines for "+
			"%d calls",
			len(lines), told, calls/4, calls)
	}
}

func TestPolicyIsByUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to call as other users")
	}
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	dir := testkit.Dir(t)
	keys := filepath.Join(dir, "keys")
	if err := os.Mkdir(keys, 0o755); err != nil {
		t.Fatal(err)
	}
	in, out := put(t, ca.File, keys+"/ca"), put(t, ca.File, dir+"/ca")
	r := startRuled(t, fmt.Sprintf(`
		[default]
		ca-folders = []
		[user.1234]
		ca-folders = [%q]
		[user.root]
		ca-folders = ["/"]
	`, keys), "--allow-uid", "1234,1235")
	as := func(uid uint32) *syscall.Credential {
		return &syscall.Credential{Uid: uid, Gid: uid + 1}
	}
	for _, tc := range []struct {
		uid        uint32
		file, want string
	}{
		{0, in, `"result":0`},
		{0, out, `"result":0`},
		{1234, in, `"result":0`},
		{1234, out, `"kind":"denied"`},
		{1235, in, `"kind":"denied"`},
		{1235, out, `"kind":"denied"`},
		{1236, in, `"id":null,"error":{"code":-32012`}, // user 1236 may not even connect
	} {
		if got := callAs(t, as(tc.uid), r.sock,
			request(1, "tls.SetCaBundle", tc.file)); !strings.Contains(got, tc.want) {
			t.Errorf("user %d, tls.SetCaBundle of %s: got %s; want "+
				"%s", tc.uid, tc.file, got, tc.want)
		}
	}
	lines := map[line]bool{} // several workers and the supervisor log them, in any order
	for _, l := range r.audit(4) {
		if l.PID == 0 || (l.Session == 0) != (l.Method == "connect") {
			t.Errorf("an audit line lacks its process or session: %+v", l)
		}
		l.PID, l.Session = 0, 0
		lines[l] = true
	}
	for _, want := range []line{
		{UID: 1234, Method: "tls.SetCaBundle", Asked: out, Key: "ca-folders"},
		{UID: 1235, Method: "tls.SetCaBundle", Asked: in, Key: "ca-folders"},
		{UID: 1235, Method: "tls.SetCaBundle", Asked: out, Key: "ca-folders"},
		{UID: 1236, Method: "connect", Asked: r.sock},
	} {
		want.Logger, want.Msg, want.GID = "audit", "denied", want.UID+1
		if !lines[want] {
			t.Errorf("the log lacks the audit line %+v", want)
		}
	}

	// If the new file is empty, or belongs to another user, tlsd keeps the old policy.
	r.write("")
	r.reload("it has no table")
	if got := callAs(t, as(1235), r.sock, request(1, "tls.SetCaBundle", in)); !strings.Contains(
		got, `"kind":"denied"`) {
		t.Errorf("the policy file is empty now, and the old policy is not kept: %s", got)
	}
	r.write("[default]\n")
	if err := os.Chown(r.policy, 1234, 0); err != nil {
		t.Fatal(err)
	}
	r.reload("it belongs to user 1234")
	if got := callAs(t, as(1235), r.sock, request(1, "tls.SetCaBundle", in)); !strings.Contains(
		got, `"kind":"denied"`) {
		t.Errorf("another user owns the policy file now, but the old policy is not kept: "+
			"%s", got)
	}
}
