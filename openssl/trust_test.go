package openssl_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/openssl"
)

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSystemTrustIsFound(t *testing.T) {
	ca := testcert.NewCA(t, "CA").PEM()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "cert.pem"), append(ca, ca...))
	certs := filepath.Dir(write(t, filepath.Join(dir, "certs", "0123abcd.0"), ca))
	write(t, filepath.Join(certs, "README"), nil)
	bare := filepath.Dir(write(t, filepath.Join(dir, "bare", "README"), nil))
	missing := filepath.Join(dir, "missing")
	fallback := write(t, filepath.Join(dir, "fallback.pem"), ca)
	empty := write(t, filepath.Join(dir, "empty.pem"), nil)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// These are texts for the field Empty. Most cases expect the first text, because the first
	// of the fallback files is always missing.
	gone, none := missing+" does not exist", " has no certificates named by their hash"

	for name, tc := range map[string]struct {
		file, dir         string // compiled in
		envFile, envDir   string
		fallback, fallDir string
		want              openssl.TrustStore
	}{
		"compiled in": {file, certs, "", "", fallback, missing,
			openssl.TrustStore{Source: "compiled-in", File: file, Dir: certs,
				Certificates: 3}},
		"file only": {file, missing, "", "", fallback, missing,
			openssl.TrustStore{Source: "compiled-in", File: file, Certificates: 2}},
		"dir only": {missing, certs, "", "", fallback, missing,
			openssl.TrustStore{Source: "compiled-in", Dir: certs, Certificates: 1}},
		"empty ones": {empty, bare, "", "", fallback, missing,
			openssl.TrustStore{Source: "fallback", File: fallback, Certificates: 1,
				Empty: []string{empty + " is empty", bare + none, gone}}},
		"of other sorts": {certs, file, "", "", fallback, missing,
			openssl.TrustStore{Source: "fallback", File: fallback, Certificates: 1,
				Empty: []string{certs + " is a directory",
					file + " is not a directory",
					gone}}},
		"fallback to a file": {missing, missing, "", "", fallback, certs,
			openssl.TrustStore{Source: "fallback", File: fallback, Certificates: 1,
				Empty: []string{gone, gone, gone}}},
		"fallback to a directory": {missing, missing, "", "", missing, certs,
			openssl.TrustStore{Source: "fallback", Dir: certs, Certificates: 1,
				Empty: []string{gone, gone, gone, gone}}},
		"nothing": {missing, missing, "", "", missing, missing,
			openssl.TrustStore{Source: "none",
				Empty: []string{gone, gone, gone, gone, gone}}},
		"file by environment": {missing, certs, file, "", fallback, missing,
			openssl.TrustStore{Source: "SSL_CERT_FILE", File: file, Dir: certs,
				Certificates: 3}},
		"dir by environment": {missing, missing, "", certs + ":" + bare, fallback, missing,
			openssl.TrustStore{Source: "SSL_CERT_DIR", Dir: certs + ":" + bare,
				Certificates: 1}},
		"both by environment": {missing, missing, file, certs, fallback, missing,
			openssl.TrustStore{Source: "SSL_CERT_FILE", File: file, Dir: certs,
				Certificates: 3}},
		"narrowed to nothing": {missing, missing, missing, "", fallback, missing,
			openssl.TrustStore{Source: "SSL_CERT_FILE", File: missing,
				Empty: []string{gone, gone}}},
		"narrowed to a directory with nothing": {file, missing, "", bare, fallback, missing,
			openssl.TrustStore{Source: "SSL_CERT_DIR", File: file, Dir: bare,
				Certificates: 2}},
		"a FIFO by environment": {missing, missing, fifo, "", fallback, missing,
			openssl.TrustStore{Source: "SSL_CERT_FILE", File: fifo,
				Empty: []string{fifo + " is not a regular file", gone}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SSL_CERT_FILE", tc.envFile)
			t.Setenv("SSL_CERT_DIR", tc.envDir)
			if got := openssl.FindTrust(tc.file, tc.dir, []string{missing, tc.fallback},
				tc.fallDir); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestTrustStoreTellsPeopleWhatItIs(t *testing.T) {
	t.Parallel()
	for want, store := range map[string]openssl.TrustStore{
		"/etc/ssl/certs (system)": {Source: "compiled-in", Dir: "/etc/ssl/certs",
			Certificates: 1},
		"/a.pem and /b (system)": {Source: "fallback", File: "/a.pem", Dir: "/b",
			Certificates: 1},
		"/a.pem (system, from SSL_CERT_FILE)": {Source: "SSL_CERT_FILE", File: "/a.pem",
			Certificates: 1},
		"/a.pem (system, from SSL_CERT_FILE), which has no certificates; tried: /a.pem " +
			"does not exist": {Source: "SSL_CERT_FILE", File: "/a.pem",
			Empty: []string{"/a.pem does not exist"}},
		"none found on this system; tried: /a is empty, /b does not exist": {Source: "none",
			Empty: []string{"/a is empty", "/b does not exist"}},
	} {
		if got := store.String(); got != want {
			t.Errorf("the text for %+v is %q, want %q", store, got, want)
		}
	}
}

// Clients trust the store that SystemTrust reports, also after its file has changed.
func TestSystemTrustIsWhatClientsTrust(t *testing.T) {
	l := load(t)
	id, other := newIdentity(t), testcert.NewCA(t, "Other")
	handshake := func() error {
		ctx, err := l.NewClientContext(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ctx.Free()
		ours, peers := tcpPair(t)
		go serve(peers, &tls.Config{Certificates: []tls.Certificate{id.cert.TLS()}})
		c, err := ctx.NewClient(ours, "localhost")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Handshake(bounded(t))
	}
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	file := write(t, filepath.Join(t.TempDir(), "trust.pem"), id.ca.PEM())
	t.Setenv("SSL_CERT_FILE", file)
	if got := l.SystemTrust(); got.Source != openssl.TrustEnvFile || got.File != file ||
		got.Certificates != 1 {
		t.Errorf("SystemTrust: %+v, want 1 certificate from %s", got, file)
	}
	if err := handshake(); err != nil {
		t.Errorf("the handshake fails, although SSL_CERT_FILE has the server's CA: %v", err)
	}

	write(t, file, append(other.PEM(), other.PEM()...))
	if err := os.Chtimes(file, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := l.SystemTrust(); got.Certificates != 2 {
		t.Errorf("SystemTrust after the change of the file: %+v, want 2 certificates", got)
	}
	if err := handshake(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("the handshake without the server's CA: %v, want an error that names %s",
			err, file)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := handshake(); err == nil ||
		!strings.Contains(err.Error(),
			"which has no certificates; tried: "+file+" does not exist") {
		t.Errorf("the handshake when %s is gone: %v, want an error that says so", file, err)
	}
}
