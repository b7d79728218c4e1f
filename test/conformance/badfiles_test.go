package conformance

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// A call that names a bad file, or a file that may not be read, fails with kind file. The error
// names the file. The session goes on as before.

// A place is a parameter that names a file.
type place string

const (
	asBundle place = "tls.SetCaBundle"
	asCert   place = "tls.NewServerContext, certificate"
	asKey    place = "tls.NewServerContext, key"
)

var everyPlace = []place{asBundle, asCert, asKey}

// badFiles lists files that must be refused, each with the parameters in which it is bad.
var badFiles = []struct {
	name   string
	places []place
	make   func(*testing.T, *world) string // returns the path
	errno  string
	says   []string // texts that the error must have
}{
	{"does not exist", everyPlace, inDir("nothing.pem", nil), "ENOENT",
		[]string{"no such file"}},
	{"in a directory that does not exist", everyPlace, inDir("nowhere/nothing.pem", nil),
		"ENOENT", []string{"no such file"}},
	{"below a file", everyPlace,
		func(t *testing.T, w *world) string { return w.ca.File + "/x.pem" }, "ENOTDIR",
		[]string{"not a directory"}},
	{"a link to itself", everyPlace, func(t *testing.T, _ *world) string {
		file := filepath.Join(t.TempDir(), "loop.pem")
		testkit.Must(t, os.Symlink(file, file))
		return file
	}, "ELOOP", nil},
	{"a link to nothing", everyPlace, func(t *testing.T, _ *world) string {
		file := filepath.Join(t.TempDir(), "dangling.pem")
		testkit.Must(t, os.Symlink("/nonexistent", file))
		return file
	}, "ENOENT", []string{"no such file"}},
	{"a name that is too long", everyPlace, inDir(strings.Repeat("x", 256), nil),
		"ENAMETOOLONG", nil},
	{"a directory", everyPlace, func(t *testing.T, _ *world) string { return t.TempDir() }, "",
		[]string{"directory"}},
	{"a FIFO", everyPlace, func(t *testing.T, _ *world) string {
		file := filepath.Join(t.TempDir(), "fifo")
		testkit.Must(t, unix.Mkfifo(file, 0o600))
		return file
	}, "", []string{"not a regular file"}},
	{"a device", everyPlace, func(*testing.T, *world) string { return "/dev/zero" }, "",
		[]string{"not a regular file"}},
	{"a socket", everyPlace, func(t *testing.T, _ *world) string {
		file := filepath.Join(testkit.Dir(t), "socket")
		l, err := net.Listen("unix", file)
		testkit.Must(t, err)
		t.Cleanup(func() { l.Close() })
		return file
	}, "ENXIO", nil},
	{"a relative path", everyPlace, func(*testing.T, *world) string { return "server.pem" }, "",
		[]string{"absolute"}},
	{"too large", everyPlace, func(t *testing.T, _ *world) string {
		file := inDir("large.pem", []byte("x"))(t, nil)
		testkit.Must(t, os.Truncate(file, 64<<20))
		return file
	}, "", []string{"larger than"}},
	{"empty", everyPlace, inDir("empty.pem", []byte{}), "", []string{"empty"}},
	{"binary", everyPlace, inDir("binary.pem", random(4096)), "", []string{"PEM"}},
	{"text", everyPlace, inDir("text.pem", []byte("this is no certificate\n")), "",
		[]string{"PEM"}},
	{"a certificate without PEM (DER)", []place{asBundle, asCert},
		func(t *testing.T, w *world) string {
			return inDir("cert.der", w.cert.Cert.Raw)(t, w)
		}, "", []string{"PEM"}},
	{"an empty block", everyPlace, inDir("hollow.pem",
		[]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")), "", nil},
	{"a block of garbage as a certificate", []place{asBundle, asCert},
		inDir("garbage.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
			Bytes: random(500)})), "", []string{"certificate"}},
	{"a block of garbage as a key", []place{asKey},
		inDir("garbage.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY",
			Bytes: random(100)})), "", []string{"key"}},
	{"a key for a certificate", []place{asBundle, asCert},
		func(t *testing.T, w *world) string { return w.cert.KeyFile }, "",
		[]string{"certificate"}},
	{"a certificate for a key", []place{asKey},
		func(t *testing.T, w *world) string { return w.cert.CertFile }, "",
		[]string{"key"}},
	{"a certificate that was cut off", []place{asBundle, asCert},
		func(t *testing.T, w *world) string {
			return inDir("half.pem", w.cert.CertPEM[:len(w.cert.CertPEM)/2])(t, w)
		}, "", nil},
	{"a good certificate, then one that was cut off", []place{asBundle, asCert},
		func(t *testing.T, w *world) string {
			return inDir("and-half.pem", append(bytes.Clone(w.cert.CertPEM),
				w.ca.PEM()[:200]...))(t, w)
		}, "", nil},
	{"a good certificate, then garbage in a block", []place{asBundle, asCert},
		func(t *testing.T, w *world) string {
			return inDir("and-garbage.pem", append(bytes.Clone(w.cert.CertPEM),
				pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
					Bytes: random(500)})...))(t, w)
		}, "", []string{"block 2"}},
	{"a key that was cut off", []place{asKey}, func(t *testing.T, w *world) string {
		return inDir("half.key", w.cert.KeyPEM[:len(w.cert.KeyPEM)/2])(t, w)
	}, "", nil},
	{"an encrypted key", []place{asKey},
		func(t *testing.T, w *world) string { return w.cert.EncryptedKey(t, password) }, "",
		[]string{"encrypted"}},
	{"an encrypted key of the old form", []place{asKey}, func(t *testing.T, w *world) string {
		return w.cert.EncryptedKeyTraditional(t, password)
	}, "", []string{"encrypted"}},
	{"another certificate's key", []place{asKey},
		func(t *testing.T, w *world) string { return w.cert.MismatchedKey(t) }, "",
		[]string{"key", "match"}},
	{"another certificate's key, of another type",
		[]place{asKey}, func(t *testing.T, w *world) string {
			return issue(t, w.ca, testcert.Leaf{CN: "x", Key: testcert.RSA}).KeyFile
		}, "", []string{"key", "match"}},
}

// inDir returns a function that writes a file into a new folder and returns its path. If content is
// nil, the function only returns a path.
func inDir(name string, content []byte) func(*testing.T, *world) string {
	return func(t *testing.T, _ *world) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), name)
		if content != nil {
			testkit.Must(t, os.WriteFile(file, content, 0o600))
		}
		return file
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	b[0] = 0xff // neither PEM nor DER begins with this byte
	return b
}

// A call that names a bad file fails with kind file. The error names the file and says what is
// wrong. The session goes on with the CA bundle that was set before.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		p := newTwoSessions(t, e, w)
		for _, at := range everyPlace {
			for _, c := range badFiles {
				if !slices.Contains(c.places, at) {
					continue
				}
				t.Run(fmt.Sprintf("%s: %s", at, c.name), func(t *testing.T) {
					path := c.make(t, w)
					if why := cannot(e, asBoth, relative); why != "" &&
						!filepath.IsAbs(path) {
						t.Skip(why)
					}
					var err error
					op := "tls.NewServerContext"
					switch at {
					case asBundle:
						op, err = "tls.SetCaBundle", p.s.SetCaBundle(p.ctx,
							path)
					case asCert:
						_, err = p.s.NewServerContext(p.ctx, path,
							w.cert.KeyFile)
					case asKey:
						_, err = p.s.NewServerContext(p.ctx,
							w.cert.CertFile, path)
					}
					p.refused(t, err, want{kind: client.KindFile, op: op,
						errno: c.errno, says: append(c.says, path)})
					if testing.Verbose() {
						t.Log(err)
					}
				})
			}
		}
	})
}

// If the daemon has no right to read a file or to listen on a port, the call fails with errno
// EACCES. If root runs the test, the daemon runs as the user nobody.
func TestWithoutTheRightTo(t *testing.T) {
	t.Parallel()
	needsLevel(t, bareDaemon)
	w := newWorld(t)
	const nobody = 65534
	o := testd.Options{}
	if os.Getuid() == 0 {
		o = testd.Options{UID: nobody, Flags: []string{"--allow-uid=0"}}
	}
	d := daemonWith(t, o)
	// Not d.Dial, because rpc/client does not trust the socket of a foreign user. If root runs
	// the test, the daemon's user is foreign.
	conn, err := net.Dial("unix", d.Socket)
	testkit.Must(t, err)
	s, ctx := client.New(conn), testkit.Bounded(t)
	t.Cleanup(func() { s.Close() })
	dir := testkit.Dir(t) // everybody may enter it

	ours := func(name string, content []byte, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		testkit.Must(t, os.WriteFile(file, content, mode))
		return file
	}
	unreadable := ours("unreadable.pem", w.cert.CertPEM, 0)
	cert, key := ours("cert.pem", w.cert.CertPEM, 0o644), ours("cert.key", w.cert.KeyPEM, 0o644)
	check := func(err error, kind client.Kind, says ...string) {
		t.Helper()
		e := failure(err)
		if e == nil || e.Kind != kind || e.Data.Errno != "EACCES" ||
			!mentions(e, append(says, "permission denied")...) {
			t.Errorf("the error is %v; want kind %s, errno EACCES, and the texts %q",
				err, kind, says)
		}
	}
	check(s.SetCaBundle(ctx, unreadable), client.KindFile, unreadable)
	_, err = s.NewServerContext(ctx, unreadable, key)
	check(err, client.KindFile, unreadable)
	_, err = s.NewServerContext(ctx, cert, unreadable)
	check(err, client.KindFile, unreadable)

	h, err := s.NewServerContext(ctx, cert, key)
	testkit.Must(t, err)
	if limit, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil &&
		strings.TrimSpace(string(limit)) == "0" {
		t.Log("left out: this machine has no privileged ports " +
			"(net.ipv4.ip_unprivileged_port_start is 0)")
		return
	}
	_, err = s.Accept(ctx, h, "127.0.0.1", 1)
	check(err, client.KindConnect, "127.0.0.1:1")
}
