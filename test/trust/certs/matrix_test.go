package certs

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlsd/internal/testkit"
	"tlsd/openssl"
)

// securityLevel is the default security level of Debian's OpenSSL (SSL_CTX_set_security_level(3)).
// Other builds may have another level. The configuration below sets the level, so that every
// library judges by the same one.
const securityLevel = "2"

const config = `openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
CipherString = DEFAULT@SECLEVEL=` + securityLevel + "\n"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "certs")
	if err != nil {
		panic(err)
	}
	file := filepath.Join(dir, "openssl.cnf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		panic(err)
	}
	os.Setenv("OPENSSL_CONF", file) // the library reads it once, when it is loaded
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// invalidCA stands for X509_V_ERR_INVALID_CA, which has another number since OpenSSL 3.0.
const invalidCA = -24

var (
	endless  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	february = time.Date(2040, 2, 28, 12, 0, 0, 0, time.UTC)
	serial7  = big.NewInt(7)
	version3 = []byte{0xa0, 3, 2, 1, 2}
)

// A meaning has OpenSSL's text for a code, and the kind of verdict that crypto/x509 should give.
type meaning struct{ text, kind string }

// meanings has the texts of OpenSSL 3.0. For the texts of other versions see wordings.
var meanings = map[int]meaning{
	7:         {"certificate signature failure", badAuthority},
	9:         {"certificate is not yet valid", badTime},
	10:        {"certificate has expired", badTime},
	14:        {"format error in certificate's notAfter field", badForm},
	18:        {"self-signed certificate", badAuthority},
	19:        {"self-signed certificate in certificate chain", badAuthority},
	20:        {"unable to get local issuer certificate", badAuthority},
	invalidCA: {"invalid CA certificate", badCA},
	25:        {"path length constraint exceeded", badPath},
	26:        {"unsuitable certificate purpose", badUsage},
	34:        {"unhandled critical extension", badCritical},
	47:        {"permitted subtree violation", badScope},
	48:        {"excluded subtree violation", badScope},
	62:        {"hostname mismatch", badName},
	64:        {"IP address mismatch", badName},
	66:        {"EE certificate key too weak", badStrength},
	67:        {"CA certificate key too weak", badStrength},
	68:        {"CA signature digest algorithm too weak", badStrength},
}

// A wording is the text for a code in other versions of OpenSSL than 3.0.
type wording struct {
	code     int
	versions []string
	text     string
}

var wordings = []wording{
	{18, []string{"1.1.1"}, "self signed certificate"},
	{19, []string{"1.1.1"}, "self signed certificate in certificate chain"},
	{26, []string{"1.1.1"}, "unsupported certificate purpose"},
	{62, []string{"1.1.1"}, "Hostname mismatch"},
	{9, []string{"3.6", "4."}, "certificate is not yet valid or the system clock is incorrect"},
}

// Our client gives each chain of the matrix the right verdict and the right text, in TLS 1.2 and
// 1.3. The other judges give the same verdict, or else the one in the table of disagreements.
func TestEachChainGetsTheRightVerdict(t *testing.T) {
	lib, err := openssl.Load(os.Getenv("TLSD_TEST_LIBSSL"))
	testkit.Must(t, err)
	version := strings.TrimPrefix(lib.Version(), "OpenSSL ")
	if want := os.Getenv("TLSD_TEST_OPENSSL"); !strings.HasPrefix(version, want) {
		t.Fatalf("%s is loaded from %s, want version %s", lib.Version(), lib.Path(), want)
	}
	cmd, why := findCommand(lib)
	if cmd == nil {
		// so that the missing judge counts as a skipped test
		t.Run(judgeCommand, func(t *testing.T) {
			testkit.Missing(t, "SKIPPED in all cases: %s", why)
		})
	}
	names := map[string]bool{}
	for _, r := range rows {
		if names[r.name] {
			t.Errorf("two cases are named %q", r.name)
		}
		names[r.name] = true
	}
	for key, d := range disagreements {
		if d.why == "" {
			t.Errorf("the table of disagreements gives no reason for %q", key.row)
		}
		if !names[key.row] {
			t.Errorf("the table of disagreements has %q, which is the name of no case",
				key.row)
		}
	}

	var mu sync.Mutex // guards count
	count := map[string]int{}
	t.Run("rows", func(t *testing.T) {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				host := r.host
				if host == "" {
					host = "host.test"
				}
				root := newRoot(t, "Root", newKey(t))
				c := r.make(t, root)
				if c.trust == nil {
					c.trust = [][]byte{root.der}
				}
				if r.until != "" && version >= r.until {
					r.early, r.fails = true,
						"is not a host name to OpenSSL "+r.until
				}
				verdict, kind := r.expect(version)
				for _, v := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
					checkOurs(t, r, verdict, host, ours(t, lib, c, host, v))
				}

				tally := func(judge, got, want string, detail error) {
					says, known := disagreements[about{r.name, judge}].in(
						version)
					mu.Lock()
					defer mu.Unlock()
					count[judge]++
					switch {
					case got == want && known:
						t.Errorf("%s agrees with us: %s; remove the entry "+
							"from the table of disagreements",
							judge, got)
					case got != want && !known:
						t.Errorf("%s says %q (%v), but we must say %q: "+
							"explain the difference in the table of "+
							"disagreements",
							judge, got, detail, want)
					case got != want && got != says &&
						!strings.HasPrefix(got, says+":"):
						t.Errorf("%s says %q (%v); want %q, as in the "+
							"table of disagreements", judge, got,
							detail, says)
					case got != want:
						count[judge+" otherwise"]++
						if (got == accepted) != (want == accepted) {
							count[judge+" opposite"]++
						}
					}
				}
				if r.early {
					return
				}
				if cmd != nil {
					tally(judgeCommand, cmd.verify(t, c, host), verdict, nil)
				}
				got, detail := goVerify(c, host)
				tally(judgeGo, got, kind, detail)
			})
		}
	})
	if n := queued(lib); n != 0 {
		t.Errorf("calls have left errors in OpenSSL's queue on %d threads, want none", n)
	}
	t.Logf("in figures: %s from %s: %d cases", lib.Version(), lib.Path(), len(rows))
	for _, judge := range []string{judgeCommand, judgeGo} {
		t.Logf("in figures: %s was asked in %d cases and disagrees in %d: in %d of them "+
			"one accepts and the other does not",
			judge, count[judge], count[judge+" otherwise"], count[judge+" opposite"])
	}
}

// expect returns the verdict that a row demands, in the form of command.verify, and its kind.
func (r row) expect(version string) (verdict, kind string) {
	switch {
	case r.fails != "":
		return unreadable, badForm
	case r.code == 0:
		return accepted, accepted
	}
	m := meanings[r.code]
	number, text := r.code, m.text
	for _, w := range wordings {
		if w.code == r.code && isOneOf(version, w.versions) {
			text = w.text
		}
	}
	if r.code == invalidCA {
		number = 79
		if isOneOf(version, []string{"1.1.1"}) {
			number = 24
		}
	}
	return fmt.Sprintf("(%d) at depth %d: %s", number, r.depth, text), m.kind
}

// queued returns how many of 50 threads have errors in OpenSSL's queue. The runtime reuses threads,
// so many of the 50 have called OpenSSL in the tests before.
func queued(lib *openssl.Library) (n int) {
	const threads = 50
	found, release := make(chan int, threads), make(chan struct{})
	for range threads {
		go func() {
			// each goroutine keeps its thread until release, so all have different ones
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			found <- lib.QueuedErrors()
			<-release
		}()
	}
	for range threads {
		n += min(1, <-found)
	}
	close(release)
	return n
}

func isOneOf(version string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return strings.HasPrefix(version, p)
	})
}

// checkOurs compares each part of our error, and its whole text. The text names the reason, the
// depth, the subject and the trust store, and the host if the host was wrong.
func checkOurs(t *testing.T, r row, verdict, host string, err error) {
	t.Helper()
	var v *openssl.VerifyError
	switch {
	case r.fails != "":
		if err == nil || errors.As(err, &v) || !strings.Contains(err.Error(), r.fails) {
			t.Errorf("our client says %v; want the text %q, and no verify error", err,
				r.fails)
		}
		return
	case r.code == 0:
		if err != nil {
			t.Errorf("our client refuses the chain: %v; want it accepted", err)
		}
		return
	case !errors.As(err, &v):
		t.Errorf("our client says %v; want %s", err, verdict)
		return
	}
	if got := fmt.Sprintf("(%d) at depth %d: %s", v.Code, v.Depth, v.Reason); got != verdict {
		t.Errorf("our client says %s, want %s", got, verdict)
	}
	subject := r.subject
	switch subject {
	case "":
		subject = "/CN=leaf"
	case "-":
		subject = ""
	}
	if v.Subject != subject {
		t.Errorf("our client's error has the subject %q, want %q", v.Subject, subject)
	}
	place, reason, _ := strings.Cut(verdict, ": ")
	text := fmt.Sprintf("certificate verify failed: %s %s, subject %s", reason, place,
		cmp.Or(subject, "(empty)"))
	if r.code == 62 || r.code == 64 {
		text += fmt.Sprintf("; the certificate is not for %q",
			strings.TrimSuffix(host, "."))
	}
	if text += "; trust store: bundle.pem (CA bundle)"; err.Error() != text {
		t.Errorf("our client's error reads\n%s\nwant\n%s", err, text)
	}
}

// noKeyIdentifier removes the identifiers of the certificate's key and of the issuer's key.
func noKeyIdentifier(c *x509.Certificate) { c.SubjectKeyId, c.AuthorityKeyId = nil, nil }

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	testkit.Must(t, err)
	return der
}
