package trust

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// A build is a copy of this machine's libssl and libcrypto in a folder of its own. Its libcrypto
// has another OPENSSLDIR, a path that does not exist. This path is as long as the old one, so that
// it can replace the old one in the file.
type build struct {
	dir, ssl, crypto string // the folder, and the files in it
	nowhere          string // its OPENSSLDIR
	version          string
}

func privateBuild(t *testing.T) build {
	t.Helper()
	info, err := testd.Start(t).Dial(t).Info(testkit.Bounded(t))
	testkit.Must(t, err)
	dir := t.TempDir()
	b := build{
		dir:     dir,
		ssl:     filepath.Join(dir, filepath.Base(info.Libssl.Path)),
		crypto:  filepath.Join(dir, filepath.Base(info.Libssl.Libcrypto)),
		version: info.Libssl.Version,
	}
	ssl, err := os.ReadFile(info.Libssl.Path)
	testkit.Must(t, err)
	crypto, err := os.ReadFile(info.Libssl.Libcrypto)
	testkit.Must(t, err)
	was := regexp.MustCompile(`\x00(/[^\x00]*)/cert\.pem\x00`).FindSubmatch(crypto)
	if was == nil {
		t.Fatalf("%s must contain a path that ends with /cert.pem", info.Libssl.Libcrypto)
	}
	b.nowhere = "/" + strings.Repeat("n", len(was[1])-1)
	crypto = bytes.ReplaceAll(crypto, append(was[1], "/cert"...), []byte(b.nowhere+"/cert"))
	testkit.Must(t, os.WriteFile(b.ssl, ssl, 0o700))
	testkit.Must(t, os.WriteFile(b.crypto, crypto, 0o700))
	return b
}

// doctor runs tlsshim doctor.
func doctor(t *testing.T, d *testd.Daemon) string {
	t.Helper()
	cmd := exec.CommandContext(testkit.Bounded(t), testd.Exe(t, "tlsshim"),
		"--socket="+d.Socket, "doctor")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out)
}

// says checks that the text got has each string in want. what names the text in the failure.
func says(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(got, text) {
			t.Errorf("%s must have the text %q, and says\n%s", what, text, got)
		}
	}
}

// If OpenSSL was built for a folder that does not exist, tlsd looks for the system's store in other
// places. Errors and doctor name the files in the missing folder that tlsd has tried.
func TestAnOpenSSLForAnotherFolderFindsTheSystemsStore(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), privateBuild(t)
	d := testd.StartWith(t, testd.Options{Flags: []string{"--libssl=" + b.ssl},
		Env: []string{"LD_LIBRARY_PATH=" + b.dir}})
	s := d.Dial(t)
	tried := []string{"tried: " + b.nowhere + "/cert.pem does not exist, " + b.nowhere +
		"/certs does not exist"}
	refuses(t, s, w.good, append(tried, "(system)")...)
	info, err := s.Info(testkit.Bounded(t))
	testkit.Must(t, err)
	if tr := info.Trust; tr.Source != "fallback" && tr.Source != "none" || len(tr.Empty) < 2 ||
		!strings.HasPrefix(tr.Empty[0], b.nowhere) {
		t.Errorf("tls.Info says %+v; want the source fallback or none, and %s first in "+
			"Empty", tr, b.nowhere)
	}
	says(t, "doctor", doctor(t, d), tried...)
	testkit.Must(t, s.SetCaBundle(testkit.Bounded(t), w.ca.File))
	accepts(t, s, w.good)
}

// tls.Info and doctor name the files that are loaded, even if --libssl is a link or has no folder.
func TestWhatIsReportedIsWhatIsLoaded(t *testing.T) {
	t.Parallel()
	b := privateBuild(t)
	link := filepath.Join(t.TempDir(), "a-library.so")
	testkit.Must(t, os.Symlink(b.ssl, link))
	for name, asked := range map[string]string{"by its path": b.ssl, "by a link": link,
		"by its name": filepath.Base(b.ssl)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testd.StartWith(t, testd.Options{Flags: []string{"--libssl=" + asked},
				Env: []string{"LD_LIBRARY_PATH=" + b.dir}})
			s := d.Dial(t)
			info, err := s.Info(testkit.Bounded(t))
			testkit.Must(t, err)
			l := info.Libssl
			if l.Path != b.ssl || l.Libcrypto != b.crypto || l.Version != b.version ||
				l.Pair == "" || strings.HasPrefix(l.Pair, "not compared") {
				t.Errorf("tls.Info says %+v; want the files %s and %s, and a Pair "+
					"that says that they were compared", l, b.ssl, b.crypto)
			}
			if v, err := s.Version(testkit.Bounded(t), 0); err != nil ||
				v != b.version {
				t.Errorf("tls.Version says %q, %v; want %q", v, err, b.version)
			}
			says(t, "doctor", doctor(t, d), b.version+", "+b.ssl+"\n",
				b.crypto+" ("+l.Pair+")\n")
		})
	}
}

// If the loader gives libssl the system's libcrypto and not its own, tlsd has no backend. The
// errors of calls and doctor say why, and how to mend it.
func TestAForeignLibcryptoIsToldToScripts(t *testing.T) {
	t.Parallel()
	b := privateBuild(t)
	d := testd.StartWith(t, testd.Options{Flags: []string{"--libssl=" + b.ssl}})
	s := d.Dial(t)
	if name, err := s.Backend(testkit.Bounded(t)); err != nil || name != "stub" {
		t.Errorf("tls.Backend says %q, %v; want stub", name, err)
	}
	_, err := s.NewClient(testkit.Bounded(t), "localhost", 1)
	if e, ok := err.(*client.Error); !ok || e.Kind != client.KindBackend {
		t.Fatalf("tls.NewClient returns %v; want an error of kind backend", err)
	}
	want := []string{b.ssl + " has got a foreign libcrypto, /", "and not its own, " + b.crypto,
		"set LD_LIBRARY_PATH=" + b.dir}
	says(t, "tls.NewClient", err.Error(), want...)
	says(t, "doctor", doctor(t, d), append(want, "calls will not work")...)
}
