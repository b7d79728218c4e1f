package openssl

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Where the system's CA certificates are is compiled into libcrypto, and SSL_CERT_FILE and
// SSL_CERT_DIR override it (X509_get_default_cert_file(3)). OpenSSL takes a
// missing location for an empty one and then trusts nobody, which happens
// to every libcrypto that was built with another prefix. So this file looks
// for itself, with the library's own answers, and tells the library what it has found; what
// SystemTrust reports is what is loaded.

// The sources of a TrustStore.
const (
	TrustCompiledIn = "compiled-in"   // libcrypto's own locations
	TrustEnvFile    = "SSL_CERT_FILE" // the environment of this process
	TrustEnvDir     = "SSL_CERT_DIR"  // likewise, and SSL_CERT_FILE is not set
	TrustFallback   = "fallback"      // libcrypto's locations are empty; a usual place of other systems is not
	TrustNone       = "none"          // there is nothing anywhere: no certificate will be accepted
)

// TrustStore is what "the system's trust store" means here.
type TrustStore struct {
	Source string // one of the constants above
	File   string // PEM file that was or will be loaded as a whole; "" if none
	Dir    string // directories of certificates named by their hash (openssl-rehash(1)), separated by colons; "" if none

	// Certificates is the number of certificates in File and Dir; those that are in both count twice.
	Certificates int
}

// String tells people which store it is.
func (t TrustStore) String() string {
	var places []string
	for _, p := range []string{t.File, t.Dir} {
		if p != "" {
			places = append(places, p)
		}
	}
	if len(places) == 0 {
		return "none found on this system"
	}
	s := strings.Join(places, " and ")
	switch t.Source {
	case TrustEnvFile, TrustEnvDir:
		s += " (system, from " + t.Source + ")"
	default:
		s += " (system)"
	}
	if t.Certificates == 0 {
		s += ", which has no certificates"
	}
	return s
}

// Usual places, tried in this order when libcrypto's own are empty.
var (
	fallbackFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // SUSE
		"/etc/ssl/cert.pem",                                 // BSD, macOS
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
	}
	fallbackDir = "/etc/ssl/certs"
)

// trustState is a TrustStore and what tells whether its file has changed.
type trustState struct {
	store TrustStore
	mtime time.Time // of File
	size  int64
}

// SystemTrust tells what a client context without a CA bundle trusts. It
// follows changes of the files.
func (l *Library) SystemTrust() TrustStore {
	l.trustMu.Lock()
	defer l.trustMu.Unlock()
	l.refreshTrust()
	return l.trust.store
}

// systemContext gives a reference to the SSL_CTX that trusts the system's
// store, and the store's description. It is made once, and again when the store changes: loading takes some 10 ms.
func (l *Library) systemContext() (ctx uintptr, store string, err error) {
	l.trustMu.Lock()
	defer l.trustMu.Unlock()
	l.refreshTrust()
	if l.trustCtx == 0 {
		if ctx, err = l.newClientCtx(); err != nil {
			return 0, "", err
		}
		// A file that cannot be loaded is an empty one, as for OpenSSL itself.
		l.exclusive(func() {
			withCString(l.trust.store.File, func(p uintptr) { call(l.sym.ctxLoadVerifyLocations, ctx, p, 0) })
			withCString(l.trust.store.Dir, func(p uintptr) { call(l.sym.ctxLoadVerifyLocations, ctx, 0, p) })
		})
		l.trustCtx = ctx
	}
	l.exclusive(func() { call(l.sym.ctxUpRef, l.trustCtx) })
	return l.trustCtx, l.trust.store.String(), nil
}

// refreshTrust brings l.trust up to date and drops the context of an outdated
// one. The caller holds trustMu.
func (l *Library) refreshTrust() {
	now := findTrust(l.locations(), fallbackFiles, fallbackDir)
	if old := l.trust; old != nil && old.store.Source == now.store.Source && old.store.File == now.store.File &&
		old.store.Dir == now.store.Dir && old.mtime.Equal(now.mtime) && old.size == now.size {
		return
	}
	now.store.Certificates = countFile(now.store.File) + countDirs(now.store.Dir)
	l.trust = now
	if l.trustCtx != 0 {
		l.exclusive(func() { call(l.sym.ctxFree, l.trustCtx) })
		l.trustCtx = 0
	}
}

// locations is what libcrypto says about its trust store.
type locations struct {
	file, dir       string // compiled in
	fileEnv, dirEnv string // names of the environment variables that override them
}

func (l *Library) locations() (loc locations) {
	l.exclusive(func() {
		loc.file, loc.dir = goString(call(l.sym.defaultCertFile)), goString(call(l.sym.defaultCertDir))
		loc.fileEnv, loc.dirEnv = goString(call(l.sym.defaultCertFileEnv)), goString(call(l.sym.defaultCertDirEnv))
	})
	return loc
}

// findTrust decides which store is the system's.
func findTrust(loc locations, fallbackFiles []string, fallbackDir string) *trustState {
	t := &trustState{store: TrustStore{Source: TrustCompiledIn}}
	// A location that was set on purpose stays, even if nothing is there: what
	// an administrator has narrowed must not be widened.
	envFile, envDir := os.Getenv(loc.fileEnv), os.Getenv(loc.dirEnv)
	switch {
	case envFile != "":
		t.store.Source, t.store.File = TrustEnvFile, envFile
	case hasFile(loc.file):
		t.store.File = loc.file
	}
	switch {
	case envDir != "":
		t.store.Dir = envDir
		if envFile == "" {
			t.store.Source = TrustEnvDir
		}
	case countDirs(loc.dir) > 0:
		t.store.Dir = loc.dir
	}
	if t.store.File == "" && t.store.Dir == "" {
		t.store.Source = TrustNone
		for _, f := range fallbackFiles {
			if hasFile(f) {
				t.store.Source, t.store.File = TrustFallback, f
				break
			}
		}
		if t.store.File == "" && countDirs(fallbackDir) > 0 {
			t.store.Source, t.store.Dir = TrustFallback, fallbackDir
		}
	}
	if st, err := os.Stat(t.store.File); err == nil {
		t.mtime, t.size = st.ModTime(), st.Size()
	}
	return t
}

func hasFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Size() > 0
}

// countFile counts the certificates in a PEM file.
func countFile(path string) (n int) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if line := sc.Bytes(); bytes.HasPrefix(line, []byte("-----BEGIN ")) && bytes.Contains(line, []byte("CERTIFICATE-----")) {
			n++
		}
	}
	return n
}

// hashed is how OpenSSL finds a certificate in a directory.
var hashed = regexp.MustCompile(`^[0-9a-f]{8}\.[0-9]+$`)

// countDirs counts the certificates in directories separated by colons.
func countDirs(dirs string) (n int) {
	for _, dir := range filepath.SplitList(dirs) {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := f.Readdirnames(-1) // what could be read counts
		f.Close()
		for _, name := range names {
			if hashed.MatchString(name) {
				n++
			}
		}
	}
	return n
}
