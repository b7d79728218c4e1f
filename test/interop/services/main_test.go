package services

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

func TestMain(m *testing.M) { testd.Main(m) }

// need returns the path of a program, which it finds in one of the folders, in /usr/sbin, or in
// PATH. Without the program the test is skipped. Under make services it fails.
func need(t *testing.T, program string, folders ...string) string {
	t.Helper()
	for _, pattern := range append(folders, "/usr/sbin") {
		// Glob fails only if a pattern is bad.
		found, _ := filepath.Glob(filepath.Join(pattern, program))
		if len(found) > 0 {
			return found[len(found)-1] // the newest, of several versions
		}
	}
	found, err := exec.LookPath(program)
	if err == nil {
		return found
	}
	if os.Getenv("TLSD_TEST_SERVICES") == "1" {
		t.Fatalf("TLSD_TEST_SERVICES=1: %s is not installed", program)
	}
	t.Skipf("%s is not installed; make services installs it", program)
	return ""
}

// needRoot skips a test whose server must start as root, unless root runs the test.
func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("this needs root: " + why)
	}
}

// A service is a server or another program, with its folder, its user and its process.
type service struct {
	t    *testing.T
	root string // the folder that the process has as its root; empty: /
	dir  string
	uid  int
	name string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

// This constant is the uid of the user nobody in another root (see within).
const nobody = 65534

// newService prepares a server that runs as the user with the name account. If the tester is not
// root, the server runs as the tester.
func newService(t *testing.T, account string) *service {
	t.Helper()
	s := &service{t: t, dir: testkit.Dir(t), uid: os.Getuid()}
	if s.uid == 0 {
		u, err := user.Lookup(account)
		testkit.Must(t, err)
		s.uid, err = strconv.Atoi(u.Uid)
		testkit.Must(t, err)
	}
	testkit.Must(t, os.Chown(s.dir, s.uid, -1))
	return s
}

// The method within gives the service another root: a folder with the file system of another
// release. The service must have no files yet.
func (s *service) within(root string) {
	s.t.Helper()
	if root == "" {
		return
	}
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "")
	testkit.Must(s.t, err)
	s.t.Cleanup(func() { testkit.Must(s.t, os.RemoveAll(dir)) })
	testkit.Must(s.t, os.Chown(dir, s.uid, -1))
	s.root, s.dir = root, strings.TrimPrefix(dir, root)
}

// path is the path of a file of the service, as its programs see it.
func (s *service) path(name string) string { return filepath.Join(s.dir, name) }

// outside is the path of the same file, as the test sees it.
func (s *service) outside(name string) string { return filepath.Join(s.root, s.path(name)) }

// folder makes a folder that belongs to the service, and returns its path.
func (s *service) folder(name string) string {
	s.t.Helper()
	testkit.Must(s.t, os.MkdirAll(s.outside(name), 0o700))
	testkit.Must(s.t, os.Chown(s.outside(name), s.uid, -1))
	return s.path(name)
}

// file writes a file that only the service may read, and returns its path.
func (s *service) file(name, text string) string {
	s.t.Helper()
	testkit.Must(s.t, os.WriteFile(s.outside(name), []byte(text), 0o600))
	testkit.Must(s.t, os.Chown(s.outside(name), s.uid, -1))
	return s.path(name)
}

// newServer returns certificates, a service that runs as the user nobody, and a free port for it.
func newServer(t *testing.T) (w *world, s *service, port int) {
	t.Helper()
	return newWorld(t), newService(t, "nobody"), testkit.Port(t)
}

// identity writes the server's certificate, its key and the CA into the folder of the service. It
// returns their paths.
func (s *service) identity(w *world) (cert, key, ca string) {
	s.t.Helper()
	return s.file("server.crt", string(w.cert.CertPEM)),
		s.file("server.key", string(w.cert.KeyPEM)), s.file("ca.pem", string(w.ca.PEM()))
}

// Write receives the output of the process.
func (s *service) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *service) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// begin starts a program as the service's user.
func (s *service) begin(program string, args ...string) {
	s.t.Helper()
	s.name, s.cmd, s.done = filepath.Base(program), exec.Command(program, args...),
		make(chan struct{})
	s.cmd.Dir = s.dir
	s.cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LC_ALL=C", "HOME=" + s.dir}
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.cmd.WaitDelay = time.Second // children of the process may keep its output open
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: s.root}
	if s.uid != os.Getuid() {
		who := &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}
		s.cmd.SysProcAttr.Credential = who
	} else if s.root != "" { // a user may change the root only in a new user namespace
		s.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		s.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody,
			HostID: s.uid, Size: 1}}
	}
	done := s.done
	testkit.Must(s.t, testd.Spawn(s.cmd, func() {
		defer close(done)
		_ = s.cmd.Wait() // the result is in ProcessState
	}))
}

// run runs a program to its end. If the program fails, the test ends.
func (s *service) run(program string, args ...string) {
	s.t.Helper()
	s.begin(program, args...)
	timer := time.AfterFunc(testkit.Patience, func() { s.cmd.Process.Kill() })
	defer timer.Stop()
	if <-s.done; !s.cmd.ProcessState.Success() {
		s.t.Fatalf("%s fails: %v\n%s", s.name, s.cmd.ProcessState, s.said())
	}
}

// serve starts a server, and waits until it listens. The signal stop is sent to the server at the
// end of the test.
func (s *service) serve(port int, stop syscall.Signal, program string, args ...string) {
	s.t.Helper()
	s.begin(program, args...)
	s.t.Cleanup(func() {
		_ = s.cmd.Process.Signal(stop) // Signal fails if the process has ended
		select {
		case <-s.done:
		case <-time.After(testkit.Patience):
			s.cmd.Process.Kill()
			<-s.done
			s.t.Errorf("%s has not ended within %v", s.name, testkit.Patience)
		}
		if s.t.Failed() {
			s.t.Logf("%s: %v\n%s", s.name, s.cmd.ProcessState, s.said())
		}
	})
	testkit.Until(s.t, s.name+" listens", func() bool {
		select {
		case <-s.done:
			s.t.Fatalf("%s has ended before it listened: %v", s.name,
				s.cmd.ProcessState)
		default:
		}
		return testd.Listening(s.t, port)
	})
}

// A world has the certificates of a test.
type world struct {
	ca      *testcert.CA
	cert    *testcert.Cert            // of servers
	clients map[string]*testcert.Cert // of clients; nil: no certificate
}

const clientName = "somebody"

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := testcert.NewCA(t, "Test CA")
	leaf := testcert.Leaf{CN: clientName}
	old := leaf
	old.Expired = true
	return &world{ca: ca, cert: ca.Localhost(t),
		clients: map[string]*testcert.Cert{
			"a good one":        ca.Issue(t, leaf),
			"an expired one":    ca.Issue(t, old),
			"one of another CA": testcert.NewCA(t, "Other CA").Issue(t, leaf),
			"none":              nil,
		}}
}

// The type mine is our side: a session with a daemon, through rpc/client.
type mine struct {
	*client.Client
	t   *testing.T
	ctx context.Context
}

func newMine(t *testing.T, d *testd.Daemon) mine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	t.Cleanup(cancel)
	return mine{d.Dial(t), t, ctx}
}

// dial connects to a server that has the world's certificate. It does no handshake. cert is the
// client's certificate; nil: none. The parameter options has names of options, each followed by its
// value.
func (m mine) dial(w *world, port int, cert *testcert.Cert, options ...string) client.Handle {
	m.t.Helper()
	h, err := m.NewClient(m.ctx, "localhost", port)
	testkit.Must(m.t, err)
	options = append(options, "ca", w.ca.File)
	for i := 0; i < len(options); i += 2 {
		testkit.Must(m.t, m.SetOption(m.ctx, h, options[i], options[i+1]))
	}
	if cert != nil {
		testkit.Must(m.t, m.SetCertificate(m.ctx, h, "", cert.CertFile, cert.KeyFile))
	}
	return h
}

func (m mine) fact(h client.Handle, name string) string {
	m.t.Helper()
	text, err := m.HandleInfo(m.ctx, h, name)
	testkit.Must(m.t, err)
	return text
}

func (m mine) say(h client.Handle, text string) {
	m.t.Helper()
	_, err := m.Write(m.ctx, h, []byte(text))
	testkit.Must(m.t, err)
}

// hear reads until the function whole finds the text complete.
func (m mine) hear(h client.Handle, whole func(string) bool) string {
	m.t.Helper()
	return m.until(whole, func() ([]byte, error) { return m.Read(m.ctx, h, 1<<14) })
}

// sayPlain and hearPlain write and read plain text before the handshake.
func (m mine) sayPlain(h client.Handle, text string) {
	m.t.Helper()
	_, err := m.WritePlain(m.ctx, h, []byte(text))
	testkit.Must(m.t, err)
}

func (m mine) hearPlain(h client.Handle, whole func(string) bool) string {
	m.t.Helper()
	return m.until(whole, func() ([]byte, error) { return m.ReadPlain(m.ctx, h, 1<<14) })
}

func (m mine) until(whole func(string) bool, read func() ([]byte, error)) string {
	m.t.Helper()
	for got := ""; ; {
		if whole(got) {
			return got
		}
		data, err := read()
		if err == nil && len(data) == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			m.t.Fatalf("reading fails after the text %q: %v", got, err)
		}
		got += string(data)
	}
}

// failed checks that a call has failed with an error of this kind and with these texts.
func failed(t *testing.T, err error, kind client.Kind, says ...string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Errorf("the call returns %v; want an error of kind %s", err, kind)
		return
	}
	for _, s := range says {
		if !strings.Contains(e.Message, s) {
			t.Errorf("the call returns %v; want an error with the text %q", err, s)
		}
	}
}
