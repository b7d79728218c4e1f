package openssl

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The paths of the system's CA certificates are compiled into libcrypto. The environment variables
// SSL_CERT_FILE and SSL_CERT_DIR override the paths (X509_get_default_cert_file(3)). If a libcrypto
// was built with another prefix, its paths may not exist. OpenSSL reports no error for such a path,
// and trusts nobody. So this file asks libcrypto for its paths, looks for certificates there and in
// other usual places, and tells OpenSSL what to load. SystemTrust reports what is loaded.

// The sources of a TrustStore.
const (
	TrustCompiledIn = "compiled-in"   // the paths that are compiled into libcrypto
	TrustEnvFile    = "SSL_CERT_FILE" // this environment variable is set
	TrustEnvDir     = "SSL_CERT_DIR"  // this one is set, and SSL_CERT_FILE is not
	// No path of libcrypto has certificates, but a usual path of another system has.
	TrustFallback = "fallback"
	// No path has certificates, so no certificate will be accepted.
	TrustNone = "none"
)

// TrustStore describes the system's trust store.
type TrustStore struct {
	Source string // one of the constants above
	File   string // the PEM file that OpenSSL loads as a whole; "" if there is none
	// Dir has directories, separated by colons; "" if there are none. OpenSSL looks in them for
	// files that are named by a certificate's hash (openssl-rehash(1)).
	Dir string

	// Certificates is the number of certificates in File and Dir. A certificate that is in both
	// counts twice.
	Certificates int

	// Empty has the paths that were tried and have no certificates, each with the reason, such
	// as "/etc/ssl/cert.pem does not exist". If a path of libcrypto or of the environment has
	// certificates, Empty has only a File that OpenSSL cannot load.
	Empty []string
}

// String describes the store for people.
func (t TrustStore) String() string {
	var places []string
	for _, p := range []string{t.File, t.Dir} {
		if p != "" {
			places = append(places, p)
		}
	}
	s := strings.Join(places, " and ")
	switch t.Source {
	case TrustNone:
		s = "none found on this system"
	case TrustEnvFile, TrustEnvDir:
		s += " (system, from " + t.Source + ")"
	default:
		s += " (system)"
	}
	if t.Certificates == 0 && len(places) > 0 {
		s += ", which has no certificates"
	}
	if len(t.Empty) > 0 {
		s += "; tried: " + strings.Join(t.Empty, ", ")
	}
	return s
}

// The usual paths of CA certificates on other systems. If libcrypto's own paths have no
// certificates, findTrust tries these paths in this order.
var (
	fallbackFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // SUSE
		"/etc/ssl/cert.pem",                                 // BSD, macOS
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
		// SUSE; the file in /etc/ssl above is a link to this one
		"/var/lib/ca-certificates/ca-bundle.pem",
	}
	fallbackDir = "/etc/ssl/certs"
)

// trustState is a TrustStore, with the facts by which refreshTrust notices a change.
type trustState struct {
	store TrustStore
	// found is store.Empty as findTrust has made it. Later count and loadTrust change
	// store.Empty. So refreshTrust compares found, and not store.Empty.
	found []string
	mtime time.Time // the time of the last change of store.File
	size  int64
}

// SystemTrust says what a client context without a CA bundle trusts. Each call looks at the files
// anew.
func (l *Library) SystemTrust() TrustStore {
	l.trustMu.Lock()
	defer l.trustMu.Unlock()
	_ = l.loadTrust() // on an error l.trust is still up to date
	return l.trust.store
}

// systemContext returns three results: ctx is a reference to the SSL_CTX that trusts the system's
// store, store is the description of the store, and id is a text that no other store has.
func (l *Library) systemContext() (ctx uintptr, store, id string, err error) {
	l.trustMu.Lock()
	defer l.trustMu.Unlock()
	if err := l.loadTrust(); err != nil {
		return 0, "", "", err
	}
	if err := l.refCtx(l.trustCtx); err != nil {
		return 0, "", "", err
	}
	return l.trustCtx, l.trust.store.String(), fmt.Sprintf("system %d", l.trustGen), nil
}

// loadTrust brings l.trust and l.trustCtx up to date. It makes a new trustCtx only if the store has
// changed, because loading takes some 10 ms. The caller holds trustMu.
func (l *Library) loadTrust() error {
	l.refreshTrust()
	if l.trustCtx != 0 {
		return nil
	}
	ctx, err := l.newClientCtx()
	if err != nil {
		return err
	}
	// A file that OpenSSL cannot load counts as empty. OpenSSL loads either all certificates of
	// a file or none.
	s := &l.trust.store
	if emptyFile(s.File) == "" {
		loaded := false
		q := l.exclusive(func() {
			withCString(s.File, func(p uintptr) {
				loaded = int32(call(l.sym.ctxLoadVerifyLocations, ctx, p, 0)) == 1
			})
		})
		if !loaded {
			s.Certificates -= countFile(s.File)
			s.Empty = append(s.Empty, s.File+" cannot be read by OpenSSL: "+q.reason())
		}
	}
	l.exclusive(func() {
		// OpenSSL reads the directories during each verification, not now.
		withCString(s.Dir, func(p uintptr) {
			call(l.sym.ctxLoadVerifyLocations, ctx, 0, p)
		})
	})
	l.trustCtx = ctx
	l.trustGen++
	return nil
}

// refreshTrust brings l.trust up to date. If the store has changed, it drops trustCtx. The caller
// holds trustMu.
func (l *Library) refreshTrust() {
	now := findTrust(l.locations(), fallbackFiles, fallbackDir)
	if old := l.trust; old != nil && old.store.Source == now.store.Source &&
		old.store.File == now.store.File &&
		old.store.Dir == now.store.Dir && old.mtime.Equal(now.mtime) &&
		old.size == now.size && slices.Equal(old.found, now.found) {
		return
	}
	now.store.count()
	l.trust = now
	if l.trustCtx != 0 {
		l.exclusive(func() { call(l.sym.ctxFree, l.trustCtx) })
		l.trustCtx = 0
	}
}

// count sets Certificates. It clears Empty if a path of libcrypto or of the environment has
// certificates.
func (t *TrustStore) count() {
	t.Certificates = countFile(t.File) + countDirs(t.Dir)
	if t.Certificates > 0 && t.Source != TrustFallback {
		t.Empty = nil
	}
}

// locations are the paths of the trust store that libcrypto reports.
type locations struct {
	file, dir       string // compiled in
	fileEnv, dirEnv string // names of the environment variables that override file and dir
}

func (l *Library) locations() (loc locations) {
	l.exclusive(func() {
		loc.file, loc.dir = goString(call(l.sym.defaultCertFile)),
			goString(call(l.sym.defaultCertDir))
		loc.fileEnv, loc.dirEnv = goString(call(l.sym.defaultCertFileEnv)),
			goString(call(l.sym.defaultCertDirEnv))
	})
	return loc
}

// findTrust decides which store is the system's.
func findTrust(loc locations, fallbackFiles []string, fallbackDir string) *trustState {
	t := &trustState{}
	s := &t.store
	has := func(path, empty string) bool {
		if empty != "" {
			s.Empty = append(s.Empty, path+" "+empty)
		}
		return empty == ""
	}
	// A path from the environment is used even if it has no certificates. The administrator may
	// have set it to trust fewer CAs, and a fallback would trust more.
	envFile, envDir := os.Getenv(loc.fileEnv), os.Getenv(loc.dirEnv)
	if file := cmp.Or(envFile, loc.file); has(file, emptyFile(file)) || envFile != "" {
		s.File = file
	}
	if dir := cmp.Or(envDir, loc.dir); has(dir, emptyDirs(dir)) || envDir != "" {
		s.Dir = dir
	}
	switch {
	case envFile != "":
		s.Source = TrustEnvFile
	case envDir != "":
		s.Source = TrustEnvDir
	case s.File != "" || s.Dir != "":
		s.Source = TrustCompiledIn
	default:
		s.Source = TrustNone
		for _, f := range fallbackFiles {
			if has(f, emptyFile(f)) {
				s.Source, s.File = TrustFallback, f
				break
			}
		}
		if s.File == "" && has(fallbackDir, emptyDirs(fallbackDir)) {
			s.Source, s.Dir = TrustFallback, fallbackDir
		}
	}
	if st, err := os.Stat(s.File); err == nil {
		t.mtime, t.size = st.ModTime(), st.Size()
	}
	t.found = slices.Clone(s.Empty)
	return t
}

// emptyFile says why a file cannot have certificates, or returns "". It opens only regular files,
// because opening a FIFO may take for ever.
func emptyFile(path string) string {
	switch st, err := os.Stat(path); {
	case err != nil:
		return reason(err)
	case st.IsDir():
		return "is a directory"
	case !st.Mode().IsRegular():
		return "is not a regular file"
	case st.Size() == 0:
		return "is empty"
	}
	f, err := os.Open(path)
	if err != nil {
		return reason(err)
	}
	f.Close()
	return ""
}

// emptyDirs says why the directories, separated by colons, have no certificates, or returns "".
func emptyDirs(dirs string) string {
	if countDirs(dirs) > 0 {
		return ""
	}
	for _, dir := range filepath.SplitList(dirs) {
		switch st, err := os.Stat(dir); {
		case err != nil:
			return reason(err)
		case !st.IsDir():
			return "is not a directory"
		}
	}
	return "has no certificates named by their hash"
}

// reason is the text of a system error, without the operation and the path.
func reason(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "does not exist"
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	return "cannot be read: " + err.Error()
}

// countFile counts the certificates in a PEM file.
func countFile(path string) (n int) {
	if emptyFile(path) != "" {
		return 0
	}
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if line := sc.Bytes(); bytes.HasPrefix(line, []byte("-----BEGIN ")) &&
			bytes.Contains(line, []byte("CERTIFICATE-----")) {
			n++
		}
	}
	return n
}

// hashed says whether a file has a name under which OpenSSL looks for a certificate, such as
// 0123abcd.0.
func hashed(name string) bool {
	hash, number, _ := strings.Cut(name, ".")
	return len(hash) == 8 && strings.Trim(hash, "0123456789abcdef") == "" &&
		number != "" && strings.Trim(number, "0123456789") == ""
}

// countDirs counts the certificates in directories separated by colons.
func countDirs(dirs string) (n int) {
	for _, dir := range filepath.SplitList(dirs) {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := f.Readdirnames(-1) // on an error, count the names that came before
		f.Close()
		for _, name := range names {
			if hashed(name) {
				n++
			}
		}
	}
	return n
}
