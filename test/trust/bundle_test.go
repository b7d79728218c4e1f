package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// A bundle is taken or refused as a whole, as proto.md says.

// A bundle is a file for tls.SetCaBundle, with the result that proto.md promises.
type bundle struct {
	name    string
	content func(t *testing.T, w *world) []byte
	// If not empty: SetCaBundle fails with this text and kind file, and the old store stays.
	refused string
	// If not empty: SetCaBundle succeeds, but a handshake with the good server fails with this
	// text.
	untrusted string
	plugin    bool // tested through the plugin, too
}

var bundles = []bundle{
	{name: "one certificate", content: parts(ca), plugin: true},
	{name: "comments", content: parts(text("# Test CA\nsubject=CN = Test CA\n\n"), ca,
		text("\n; the end"))},
	{name: "comments that are no text", content: parts(text("\xff\xfe\x00\n"), ca)},
	{name: "CRLF", content: edit(ca, "\n", "\r\n"), plugin: true},
	{name: "CR without LF", content: edit(ca, "\n", "\r"), refused: "has lines that end with " +
		"a carriage return alone"},
	{name: "blanks at the ends of lines", content: edit(ca, "\n", " \t\n")},
	{name: "no final line feed",
		content: func(t *testing.T,
			w *world) []byte {
			return bytes.TrimSpace(w.ca.PEM())
		}},
	{name: "duplicates", content: parts(ca, other, ca, ca), plugin: true},
	{name: "byte order mark", content: parts(text("\xef\xbb\xbf"), ca)},
	{name: "UTF-16", content: func(t *testing.T, w *world) []byte {
		wide := []byte{0xff, 0xfe}
		for _, b := range w.ca.PEM() {
			wide = append(wide, b, 0)
		}
		return wide
	}, refused: "is not PEM: it is binary"},
	{name: "garbage behind it", content: parts(ca, text("\x00\x01garbage\xff"))},
	{name: "a private key inside", content: parts(key, ca), plugin: true},
	{name: "a private key alone", content: parts(key),
		refused: `has no certificate: its first PEM block is "PRIVATE KEY"`},
	{name: "a CRL inside", content: parts(block("X509 CRL", []byte("nobody reads it")), ca)},
	{name: "the old label", content: func(t *testing.T,
		w *world) []byte {
		return block("X509 CERTIFICATE", w.ca.Cert.Raw)(t, w)
	}},
	{name: "a TRUSTED CERTIFICATE", content: trusted(), plugin: true},
	{name: "a TRUSTED CERTIFICATE for servers", content: trusted("-addtrust", "serverAuth")},
	{name: "a TRUSTED CERTIFICATE for clients only",
		content: trusted("-addtrust", "clientAuth"), untrusted: "certificate rejected"},
	{name: "a TRUSTED CERTIFICATE that is not for servers",
		content: trusted("-addreject", "serverAuth"), untrusted: "certificate rejected"},
	{name: "one bad certificate among good ones",
		content: parts(ca, block("CERTIFICATE", []byte("bad")), other),
		refused: "PEM block 2 (line 11) is not a valid certificate: ", plugin: true},
	{name: "a block without an end",
		content: parts(ca, text("-----BEGIN CERTIFICATE-----\nMIIB\n")),
		refused: "has no END line: the file is cut short"},
	{name: "empty", content: parts(), refused: "the file is empty", plugin: true},
	{name: "blanks", content: parts(text("\n \r\n")), refused: "is empty"},
	{name: "text", content: parts(text("no certificate\n")), refused: "is not PEM: it has no " +
		"line that begins with -----BEGIN"},
	{name: "DER", content: func(t *testing.T, w *world) []byte { return w.ca.Cert.Raw },
		refused: "is not PEM: it is binary, perhaps DER"},
	{name: "a server's certificate as its own anchor",
		content: func(t *testing.T, w *world) []byte { return w.server.CertPEM }},
}

// A part returns some bytes for a bundle.
type part = func(*testing.T, *world) []byte

func ca(_ *testing.T, w *world) []byte    { return w.ca.PEM() }
func other(_ *testing.T, w *world) []byte { return w.other.PEM() }
func key(_ *testing.T, w *world) []byte   { return w.server.KeyPEM }

func text(s string) part { return func(*testing.T, *world) []byte { return []byte(s) } }

func block(label string, der []byte) part {
	return func(*testing.T, *world) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
	}
}

func parts(all ...part) part {
	return func(t *testing.T, w *world) (joined []byte) {
		for _, p := range all {
			joined = append(joined, p(t, w)...)
		}
		return joined
	}
}

func edit(p part, old, new string) part {
	return func(t *testing.T, w *world) []byte {
		return bytes.ReplaceAll(p(t, w), []byte(old), []byte(new))
	}
}

// trusted returns the CA's certificate as a TRUSTED CERTIFICATE with trust settings, which are
// options of openssl-x509(1).
func trusted(settings ...string) part {
	return func(t *testing.T, w *world) []byte {
		args := append([]string{"x509", "-in", w.ca.File, "-trustout"}, settings...)
		out, err := exec.CommandContext(testkit.Bounded(t), "openssl", args...).Output()
		if err != nil || !bytes.HasPrefix(out, []byte("-----BEGIN TRUSTED CERTIFICATE")) {
			t.Fatalf("openssl %q must print a TRUSTED CERTIFICATE: %v", args, err)
		}
		return out
	}
}

func (b bundle) file(t *testing.T, w *world) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.pem")
	testkit.Must(t, os.WriteFile(path, b.content(t, w), 0o600))
	return path
}

// Each kind of file is accepted or refused as proto.md says. A refused file does not change the
// store.
func TestBundlesAreTakenOrRefused(t *testing.T) {
	t.Parallel()
	w, d := newWorld(t), testd.Start(t)
	for _, b := range bundles {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			path, s := b.file(t, w), d.Dial(t)
			err := s.SetCaBundle(testkit.Bounded(t), path)
			switch {
			case b.refused != "":
				isFileError(t, err, path, b.refused)
				refuses(t, s, w.good, "(system)")
				testkit.Must(t, s.SetCaBundle(testkit.Bounded(t), w.ca.File))
				isFileError(t, s.SetCaBundle(testkit.Bounded(t), path), path,
					b.refused)
				accepts(t, s, w.good)
				refuses(t, s, w.wrong, w.ca.File+" (CA bundle)")
			case err != nil:
				t.Errorf("SetCaBundle fails: %v; want success", err)
			case b.untrusted != "":
				err := shake(t, s, w.good)
				refused(t, err, path+" (CA bundle)")
				if err != nil && !strings.Contains(err.Error(), b.untrusted) {
					t.Errorf("the handshake fails with %v; want the text %q",
						err, b.untrusted)
				}
			default:
				accepts(t, s, w.good)
			}
		})
	}
	for name, make := range map[string]func(path string) error{
		"is a directory": func(path string) error { return os.Mkdir(path, 0o700) },

		"not a regular file": func(path string) error { return unix.Mkfifo(path, 0o600) },

		"no such file or directory": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, s := filepath.Join(t.TempDir(), "bundle.pem"), d.Dial(t)
			testkit.Must(t, make(path))
			isFileError(t, s.SetCaBundle(testkit.Bounded(t), path), path, name)
			refuses(t, s, w.good, "(system)")
		})
	}
}

// isFileError checks that err has kind file, and that its text has each string in says.
func isFileError(t *testing.T, err error, says ...string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != client.KindFile {
		t.Errorf("SetCaBundle returns %v; want an error of kind file", err)
		return
	}
	for _, text := range says {
		if !strings.Contains(e.Message, text) {
			t.Errorf("SetCaBundle returns %v; want the text %q in it", err, text)
		}
	}
}

// A script that calls SetCaBundle through the plugin gets the same results.
func TestBundlesOfAScript(t *testing.T) {
	t.Parallel()
	w, d := newWorld(t), testd.Start(t)
	for _, b := range bundles {
		if !b.plugin {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			path := b.file(t, w)
			script := fmt.Sprintf(`plugin "%s";
void main() {
    i32 $c;
    tls.SetCaBundle("%s");
    $c = tls.NewClient("localhost", %d);
    tls.Handshake($c);
    tls.Close($c);
}
`, strings.TrimSuffix(testd.Plugin(t), ".so"), path, w.good)
			file := filepath.Join(t.TempDir(), "bundle.dom")
			testkit.Must(t, os.WriteFile(file, []byte(script), 0o600))
			cmd := exec.CommandContext(testkit.Bounded(t), testd.Domhost(t), file)
			cmd.Env = append(os.Environ(), "TLSD_SOCKET="+d.Socket)
			out, err := cmd.CombinedOutput()
			if (err == nil) != (b.refused == "") {
				t.Errorf("the script ends with %v (success wanted: %v) and "+
					"prints\n%s", err, b.refused == "", out)
			}
			if want := "tls.SetCaBundle: " + path; b.refused != "" &&
				(!bytes.Contains(out, []byte(want)) ||
					!bytes.Contains(out, []byte(b.refused))) {
				t.Errorf("the script prints %s\nwant the texts %q and %q", out,
					want, b.refused)
			}
		})
	}
}

// A bundle with 10 MB of certificates is accepted. The time to read a bundle grows with the square
// of the number of certificates, so this number is limited (openssl.MaxCAs). To have 10 MB with
// fewer certificates, the test makes them large.
func TestTenMegabytesOfCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	large := strangers(t, 2000)
	path := filepath.Join(t.TempDir(), "large.pem")
	testkit.Must(t, os.WriteFile(path, append(large, w.ca.PEM()...), 0o600))
	if len(large) < 10_000_000 {
		t.Fatalf("the test's bundle has only %d bytes", len(large))
	}
	s := testd.Start(t).Dial(t)
	begun := time.Now()
	testkit.Must(t, s.SetCaBundle(testkit.Bounded(t), path))
	took := time.Since(begun)
	begun = time.Now()
	accepts(t, s, w.good)
	t.Logf("2001 certificates in %d bytes: taken in %v; a handshake then takes %v", len(large),
		took.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	refuses(t, s, w.wrong, path+" (CA bundle)")
}

// strangers returns n certificates of authorities that no server uses, with 5 kB each as PEM.
func strangers(t *testing.T, n int) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	var out bytes.Buffer
	for i := range n {
		cert := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)),
			Subject:  pkix.Name{CommonName: fmt.Sprint("Stranger ", i)},
			NotAfter: time.Now().Add(time.Hour), IsCA: true,
			BasicConstraintsValid: true,
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4,
				1, 55555, 1}, Value: make([]byte, 3500)}}}
		der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
		testkit.Must(t, err)
		testkit.Must(t, pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return out.Bytes()
}

// A bundle is only for the clients that its session opens afterwards. That also holds if one
// process serves two sessions.
func TestABundleIsForLaterClientsOfItsSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, flags := range map[string][]string{"session": nil,
		"shared": {"--isolation=shared", "--workers=1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testd.Start(t, flags...)
			ctx, s, o := testkit.Bounded(t), d.Dial(t), d.Dial(t)
			if mine, others := pid(t, s),
				pid(t, o); (mine == others) != (name == "shared") {
				t.Fatalf("the processes %d and %d serve the sessions; want one "+
					"process only if the mode is shared", mine, others)
			}
			system := open(t, s, w.good)
			testkit.Must(t, s.SetCaBundle(ctx, w.ca.File))
			testkit.Must(t, o.SetCaBundle(ctx, w.other.File))
			before := open(t, s, w.good)
			testkit.Must(t, s.SetCaBundle(ctx, w.other.File))
			after, afterGood := open(t, s, w.wrong), open(t, s, w.good)
			isFileError(t, s.SetCaBundle(ctx, "/nonexistent"), "/nonexistent")
			afterBad := open(t, s, w.wrong)

			refused(t, s.Handshake(ctx, system), "(system)")
			testkit.Must(t, s.Handshake(ctx, before))
			testkit.Must(t, s.Handshake(ctx, after))
			testkit.Must(t, s.Handshake(ctx, afterBad))
			refused(t, s.Handshake(ctx, afterGood), w.other.File+" (CA bundle)")

			// SetCaBundle reads the file. Handshakes do not need it any more.
			file := filepath.Join(t.TempDir(), "copy.pem")
			testkit.Must(t, os.WriteFile(file, w.ca.PEM(), 0o600))
			testkit.Must(t, s.SetCaBundle(ctx, file))
			testkit.Must(t, os.Remove(file))
			accepts(t, s, w.good)

			accepts(t, o, w.wrong)
			refuses(t, o, w.good, w.other.File+" (CA bundle)")
			refuses(t, d.Dial(t), w.good, "(system)") // a third session has no bundle
		})
	}
}

func pid(t *testing.T, s *client.Client) int {
	t.Helper()
	h, err := s.Hello(testkit.Bounded(t))
	testkit.Must(t, err)
	return h.Server.PID
}
