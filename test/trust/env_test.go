package trust

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// The workers use SSL_CERT_FILE and SSL_CERT_DIR of the daemon. They trust only the CAs in these
// places, and no CA if the places have none.
func TestTheEnvironmentOfTheDaemonNamesTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, bare := t.TempDir(), t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(dir, hashOf(t, w.ca.File)+".0"), w.ca.PEM(),
		0o600))
	missing, fifo := filepath.Join(bare, "missing.pem"), filepath.Join(bare, "fifo")
	testkit.Must(t, unix.Mkfifo(fifo, 0o600))
	file := func(name string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		testkit.Must(t, os.WriteFile(path, content, 0o600))
		return path
	}
	broken := file("broken.pem",
		append(w.ca.PEM(), "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END "+
			"CERTIFICATE-----\n"...))
	remark := file("remark.pem", []byte("# there are no certificates here\n"))

	for name, c := range map[string]struct {
		file, dir string
		trusted   bool // whether w.ca is trusted
		// what the error of a handshake says about the store; if w.ca is trusted, the
		// handshake is with the server w.wrong, otherwise with w.good
		store string
	}{
		"a file": {w.ca.File, bare, true, w.ca.File + " and " + bare +
			" (system, from SSL_CERT_FILE)"},
		"a directory": {missing, dir, true, missing + " and " + dir +
			" (system, from SSL_CERT_FILE)"},
		"two directories": {missing, bare + ":" + dir, true, bare + ":" + dir},
		"another's file": {w.other.File, bare, false, w.other.File + " and " + bare +
			" (system, from SSL_CERT_FILE)"},
		"a missing file": {missing, bare, false, "which has no certificates; tried: " +
			missing + " does not exist, " + bare +
			" has no certificates named by their hash"},
		"a directory's name": {dir, bare, false, "tried: " + dir + " is a directory"},
		"a FIFO": {fifo, bare, false, "tried: " + fifo +
			" is not a regular file"},
		"a file's name": {missing, w.ca.File, false, w.ca.File +
			" is not a directory"},
		// OpenSSL takes the whole file or nothing of it.
		"one bad certificate among good ones": {broken, bare, false,
			"which has no certificates; tried: " + broken +
				" cannot be read by OpenSSL: "},
		"no certificate": {remark, bare, false, "tried: " + bare + " has no certificates " +
			"named by their hash, " + remark + " cannot be read by OpenSSL: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testd.StartWith(t, testd.Options{Env: []string{"SSL_CERT_FILE=" +
				c.file, "SSL_CERT_DIR=" + c.dir}})
			s := d.Dial(t)
			if c.trusted {
				accepts(t, s, w.good)
				refuses(t, s, w.wrong, c.store)
			} else {
				refuses(t, s, w.good, c.store)
			}
			info, err := s.Info(testkit.Bounded(t))
			testkit.Must(t, err)
			if (info.Trust.Certificates > 0) != (c.trusted || c.file == w.other.File) {
				t.Errorf("tls.Info says %+v; want certificates only if a file "+
					"or a directory has some", info.Trust)
			}
			// A session's own bundle replaces the system's store.
			testkit.Must(t, s.SetCaBundle(testkit.Bounded(t), w.ca.File))
			accepts(t, s, w.good)
		})
	}
}

// If SSL_CERT_DIR is set and SSL_CERT_FILE is not, the CAs in the directory are trusted.
func TestADirectoryAloneIsEnough(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(dir, hashOf(t, w.ca.File)+".0"), w.ca.PEM(),
		0o600))
	s := testd.StartWith(t, testd.Options{Env: []string{"SSL_CERT_DIR=" + dir}}).Dial(t)
	accepts(t, s, w.good)
	refuses(t, s, w.wrong, dir+" (system, from SSL_CERT_DIR)")
}
