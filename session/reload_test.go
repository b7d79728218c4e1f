package session_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// A renewal is a server whose certificate is renewed on disk.
type renewal struct {
	*rig
	notes     *notes
	dir       string
	cert, key string // paths
	ctx       session.Handle
	port      int
}

// renewing makes a renewal. The parameter option is the value of the context's option reload; if it
// is "", the option is not set. With the value auto, the files are checked before each handshake.
// The functions in set adjust the session's configuration.
func renewing(t *testing.T, option string,
	set ...func(*fakeengine.Engine, *session.Config)) *renewal {
	t.Helper()
	n := new(notes)
	return renewingOn(newRealRig(t, append(set, n.observe)...), n, option)
}

// renewingOn does the same as renewing, with a given rig. The rig's observer is n.
func renewingOn(rig *rig, n *notes, option string) *renewal {
	rig.t.Helper()
	dir := rig.t.TempDir()
	r := &renewal{rig: rig, notes: n, dir: dir, cert: filepath.Join(dir, "cert.pem"),
		key: filepath.Join(dir, "key.pem")}
	r.SetReloadPause(0)
	r.put(r.cert, r.rig.cert.CertPEM)
	r.put(r.key, r.rig.cert.KeyPEM)
	r.ctx = r.handle(r.NewServerContext(r.cert, r.key))
	r.port = r.ok(r.Listen(r.ctx, "127.0.0.1", 0)).(int)
	if option != "" {
		r.ok(r.SetOption(r.ctx, "reload", option))
	}
	return r
}

// put replaces a file by a rename, like programs that renew certificates.
func (r *renewal) put(path string, text []byte) {
	r.t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

// issue makes another certificate of the same authority.
func (r *renewal) issue(names ...string) *testcert.Cert {
	r.t.Helper()
	return r.ca.Issue(r.t, testcert.Leaf{CN: names[0], DNS: names})
}

// shown makes a client that asks for the name, and returns the serial number of the certificate
// that the client gets. The connection works, and stays open until the end of the test.
func (r *renewal) shown(name string) string {
	r.t.Helper()
	accepted := r.start(r.Accept(r.ctx, "", 0))
	c := tls.Client(dialTCP(r.t, r.port), &tls.Config{RootCAs: r.ca.Pool(), ServerName: name})
	c.SetDeadline(time.Now().Add(testkit.Patience))
	if err := c.Handshake(); err != nil {
		r.t.Fatalf("the handshake of the peer fails with %v, want success", err)
	}
	h := accepted.ok().(session.Handle)
	r.ok(r.Write(h, []byte("x")))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		r.t.Fatal(err)
	}
	return serial(c)
}

func serial(c *tls.Conn) string {
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
}

func (r *renewal) failures() (list []error) {
	r.notes.mu.Lock()
	defer r.notes.mu.Unlock()
	for _, err := range r.notes.reloads {
		if err != nil {
			list = append(list, err)
		}
	}
	return list
}

func TestCertificatesThatAreRenewedOnDiskAreTaken(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*renewal{
		"option": renewing(t, "auto"),
		"preset": renewing(t, "", func(_ *fakeengine.Engine, c *session.Config) {
			c.ReloadCertificates = true
		}),
	} {
		t.Run(name, func(t *testing.T) {
			if got := r.fact(r.ctx, "reload"); got != "auto" {
				t.Errorf("the fact reload is %q, want auto", got)
			}
			old := r.shown("localhost")
			next := r.issue("localhost")
			r.put(r.cert, next.CertPEM)
			r.put(r.key, next.KeyPEM)
			want := next.Cert.SerialNumber.Text(16)
			if got := r.shown("localhost"); got != want || got == old {
				t.Errorf("a client gets the certificate %s, want %s; before the "+
					"renewal it was %s", got, want, old)
			}
			r.notes.mu.Lock()
			defer r.notes.mu.Unlock()
			last := r.notes.certificates[len(r.notes.certificates)-1]
			if last.Serial.Text(16) != want || len(r.notes.reloads) != 1 {
				t.Errorf("the observer was told of the certificate %+v and the "+
					"reloads %v, want the new certificate and one reload", last,
					r.notes.reloads)
			}
		})
	}
}

func TestBadFilesLeaveTheOldCertificateInPlace(t *testing.T) {
	t.Parallel()
	r := renewing(t, "auto")
	old, next := r.shown("localhost"), r.issue("localhost")
	for n, step := range []struct {
		change func()
		says   string
	}{
		// the key is still the old one
		{func() { r.put(r.cert, next.CertPEM) }, "does not match"},
		{func() { r.put(r.cert, []byte("no certificate\n")) }, r.cert},
		{func() { os.Remove(r.cert) }, r.cert},
	} {
		step.change()
		for range 2 {
			if got := r.shown("localhost"); got != old {
				t.Fatalf("step %d: a client gets the certificate %s, want the "+
					"old one, %s", n, got, old)
			}
		}
		if list := r.failures(); len(list) != n+1 ||
			!strings.Contains(list[n].Error(), step.says) {
			t.Errorf("step %d: the observer was told %q; want one more with %q", n,
				list, step.says)
		}
	}
	r.put(r.cert, next.CertPEM)
	r.put(r.key, next.KeyPEM)
	if got := r.shown("localhost"); got != next.Cert.SerialNumber.Text(16) {
		t.Errorf("the new files are good, but a client gets the certificate %s, want "+
			"the new one", got)
	}
}

func TestOnlyWhatIsWantedIsReloaded(t *testing.T) {
	t.Parallel()
	r := renewing(t, "")
	other := r.issue("a.test")
	host, hostKey := files(t, other)
	r.ok(r.SetCertificate(r.ctx, "a.test", host, hostKey))
	old, next := r.shown("localhost"), r.issue("localhost")
	r.put(r.cert, next.CertPEM)
	r.put(r.key, next.KeyPEM)
	if got := r.shown("localhost"); got != old {
		t.Error("a certificate was reloaded without the option reload")
	}

	// With the option, the files of each name are reloaded.
	r.ok(r.SetOption(r.ctx, "reload", "auto"))
	renewed := r.issue("a.test")
	r.put(host, renewed.CertPEM)
	r.put(hostKey, renewed.KeyPEM)
	if got := r.shown("a.test"); got != renewed.Cert.SerialNumber.Text(16) {
		t.Errorf("a client of a.test gets the certificate %s, want the new one", got)
	}
	if got := r.shown("localhost"); got != next.Cert.SerialNumber.Text(16) {
		t.Errorf("a client of localhost gets the certificate %s, want the new one", got)
	}
	r.ok(r.SetOption(r.ctx, "reload", "off"))
	r.put(host, other.CertPEM)
	r.put(hostKey, other.KeyPEM)
	if got := r.shown("a.test"); got != renewed.Cert.SerialNumber.Text(16) {
		t.Error("a certificate was reloaded after the option reload was set to off")
	}
}

// This test is not parallel, because for a moment the process may open no descriptors.
func TestALackOfDescriptorsSaysNothingOfTheFiles(t *testing.T) {
	var lack atomic.Bool
	n := new(notes)
	r := renewingOn(newRig(t, n.observe, func(e *fakeengine.Engine, _ *session.Config) {
		e.Hook = func(_ context.Context, op fakeengine.Op) error {
			if op == fakeengine.NewServerContext && lack.Load() {
				return syscall.EMFILE
			}
			return nil
		}
	}), n, "auto")
	old, next := r.shown("localhost"), r.issue("localhost")
	r.put(r.cert, next.CertPEM)
	r.put(r.key, next.KeyPEM)

	// First, the process cannot open the files.
	var all syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &all); err != nil {
		t.Fatal(err)
	}
	none := syscall.Rlimit{Cur: 0, Max: all.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	r.LookAtCertificates(r.ctx)
	_, witness := os.Open(r.cert)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &all); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(witness, syscall.EMFILE) {
		t.Fatalf("the limit of descriptors does not work: opening a file gives %v", witness)
	}
	if list := r.failures(); len(list) != 0 {
		t.Errorf("the observer was told %q, although the files could not be checked", list)
	}

	// Now the process sees that the files have changed, but the engine lacks descriptors.
	lack.Store(true)
	for range 2 {
		if got := r.shown("localhost"); got != old {
			t.Fatalf("a client gets the certificate %s, want the old one, %s", got, old)
		}
	}
	if list := r.failures(); len(list) != 1 {
		t.Errorf("the observer was told %q; want one error", list)
	}
	lack.Store(false)
	if got := r.shown("localhost"); got != next.Cert.SerialNumber.Text(16) {
		t.Errorf("descriptors are free again, but a client gets the certificate %s, "+
			"want the new one", got)
	}
}

func TestFilesAreLookedAtOnceInAWhile(t *testing.T) {
	t.Parallel()
	r := renewing(t, "auto")
	r.SetReloadPause(era)
	old, next := r.shown("localhost"), r.issue("localhost")
	r.put(r.cert, next.CertPEM)
	r.put(r.key, next.KeyPEM)
	if got := r.shown("localhost"); got != old {
		t.Error("the files were checked again before the reload pause was over")
	}
}

func TestAReloadObeysThePolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inside, _ := ruled(t, `key-folders = ["`+dir+`"]`)
	r := &renewal{rig: inside, dir: dir, cert: filepath.Join(dir, "cert.pem"),
		key: filepath.Join(dir, "key.pem")}
	r.SetReloadPause(0)
	r.put(r.cert, r.rig.cert.CertPEM)
	r.put(r.key, r.rig.cert.KeyPEM)
	r.ctx = r.handle(r.NewServerContext(r.cert, r.key))
	r.port = r.ok(r.Listen(r.ctx, "127.0.0.1", 0)).(int)
	r.ok(r.SetOption(r.ctx, "reload", "auto"))
	old, next := r.shown("localhost"), r.issue("localhost")
	cert, key := files(t, next) // in another folder
	for link, target := range map[string]string{r.cert: cert, r.key: key} {
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.shown("localhost"); got != old {
		t.Error("a client gets a certificate of a file outside of key-folders, want the " +
			"old one")
	}
	r.fails(r.SetCertificate(r.ctx, "", r.cert, r.key), kind.Denied)
}
