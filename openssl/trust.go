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

// The place of the system's CA certificates is compiled into libcrypto. SSL_CERT_FILE and
// SSL_CERT_DIR override it (X509_get_default_cert_file(3)). OpenSSL takes a missing place for an
// empty one, and then trusts nobody. That happens to every libcrypto that was built with another
// prefix. So this file asks the library for its places, looks for certificates there and in other
// usual places, and tells the library what to load. SystemTrust reports what is loaded.

// The sources of a TrustStore.
const (
	TrustCompiledIn = "compiled-in"   // libcrypto's own locations
	TrustEnvFile    = "SSL_CERT_FILE" // the environment of this process
	TrustEnvDir     = "SSL_CERT_DIR"  // likewise, and SSL_CERT_FILE is not set
	// libcrypto's locations are empty, and a usual place of another system has certificates
	TrustFallback = "fallback"
	// there is nothing anywhere: no certificate will be accepted
	TrustNone = "none"
)

// TrustStore describes the system's trust store.
type TrustStore struct {
	Source string // one of the constants above
	File   string // PEM file that was or will be loaded as a whole; "" if none
	// directories of certificates named by their hash (openssl-rehash(1)), separated by colons;
	// "" if none
	Dir string

	// Certificates is the number of certificates in File and Dir; those that are in both count
	// twice.
	Certificates int

	// Empty are the places that were tried and have no certificates, each with the reason, such
	// as "/etc/ssl/cert.pem does not exist". It is nil if the certificates are where libcrypto
	// or the environment says.
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

// Usual places, tried in this order when libcrypto's own are empty.
var (
	fallbackFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // SUSE
		"/etc/ssl/cert.pem",                                 // BSD, macOS
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
		// SUSE, where the one in /etc is a link to it
		"/var/lib/ca-certificates/ca-bundle.pem",
	}
	fallbackDir = "/etc/ssl/certs"
)

// trustState is a TrustStore, with the facts that show whether its file has changed.
type trustState struct {
	store TrustStore
	found []string  // store.Empty as findTrust has set it
	mtime time.Time // of File
	size  int64
}

// SystemTrust says what a client context without a CA bundle trusts. It follows changes of the
// files.
func (l *Library) SystemTrust() TrustStore {
	l.trustMu.Lock()
	defer l.trustMu.Unlock()
	_ = l.loadTrust() // a place that cannot be loaded is not a part of the store
	return l.trust.store
}

// systemContext returns a reference to the SSL_CTX that trusts the system's store, the store's
// description, and an id that no other store has.
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

// loadTrust brings l.trust up to date and makes its context. The context is made again only when
// the store changes, because loading takes some 10 ms. The caller holds trustMu.
func (l *Library) loadTrust() error {
	l.refreshTrust()
	if l.trustCtx != 0 {
		return nil
	}
	ctx, err := l.newClientCtx()
	if err != nil {
		return err
	}
	// A place that cannot be loaded counts as empty. OpenSSL itself takes all of a file or
	// nothing of it.
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
		// OpenSSL reads the directories later
		withCString(s.Dir, func(p uintptr) {
			call(l.sym.ctxLoadVerifyLocations, ctx, 0, p)
		})
	})
	l.trustCtx = ctx
	l.trustGen++
	return nil
}

// refreshTrust brings l.trust up to date and drops the context of an outdated store. The caller
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

// count sets Certificates, and drops the empty places if they do not matter.
func (t *TrustStore) count() {
	t.Certificates = countFile(t.File) + countDirs(t.Dir)
	if t.Certificates > 0 && t.Source != TrustFallback {
		t.Empty = nil
	}
}

// locations are libcrypto's statements about its trust store.
type locations struct {
	file, dir       string // compiled in
	fileEnv, dirEnv string // names of the environment variables that override them
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
	// A location that was set on purpose stays, even if nothing is there: an administrator's
	// restriction must not be widened.
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

// emptyFile says why a file has no certificates, or returns "". A file that is not regular is not
// opened, because that may take for ever.
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

// emptyDirs is the same for directories separated by colons.
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

// reason is an error of the system without the operation and the file.
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

// hashed says whether OpenSSL finds a certificate of this name in a directory: 0123abcd.0.
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
		names, _ := f.Readdirnames(-1) // the names that could be read count
		f.Close()
		for _, name := range names {
			if hashed(name) {
				n++
			}
		}
	}
	return n
}
