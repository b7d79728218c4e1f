package session_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
)

func TestServerContextNeedsGoodFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bad := badFiles(t)
	bad["a key instead"] = struct{ path, says string }{r.cert.KeyFile, ""}
	for name, c := range bad {
		for _, which := range []string{"certificate", "key"} {
			if name == "a key instead" && which == "key" {
				continue
			}
			t.Run(which+", "+name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				cert, key := r.cert.CertFile, r.cert.KeyFile
				if which == "key" {
					key = c.path
				} else {
					cert = c.path
				}
				e := r.fails(r.NewServerContext(cert, key), kind.File)
				if !strings.Contains(e.Why, c.says) {
					t.Errorf("the error is %q, want one that says %q", e,
						c.says)
				}
				if n, _ := r.eng.Open(); n != 0 {
					t.Errorf("after the failed call %d contexts are open, "+
						"want 0", n)
				}
			})
		}
	}
}

func TestServerContextNeedsTheKeyOfItsCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := r.cert.MismatchedKey(t)
	e := r.fails(r.NewServerContext(r.cert.CertFile, other), kind.File)
	if !strings.Contains(e.Why, r.cert.CertFile) || !strings.Contains(e.Why, other) {
		t.Errorf("the error does not name both files: %v", e)
	}
	r.fails(r.NewServerContext(r.cert.CertFile, r.cert.EncryptedKey(t, "secret")), kind.File)
}

// TestServerContextKeepsWhatItHasRead: a context works on after its files were removed.
func TestServerContextKeepsWhatItHasRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for from, to := range map[string]string{r.cert.CertFile: cert, r.cert.KeyFile: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	ctx := r.handle(r.NewServerContext(cert, key))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	port := testkit.Port(t)
	c := r.start(r.Accept(ctx, "127.0.0.1", port))
	r.dial(port)
	c.ok()
}

func TestEngineRefusesTheCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, failing(fakeengine.NewServerContext, errors.New("ee key too small")))
	e := r.fails(r.NewServerContext(r.cert.CertFile, r.cert.KeyFile), kind.File)
	if !strings.Contains(e.Why, "ee key too small") {
		t.Errorf("the error is %v, want \"ee key too small\" in it", e)
	}
}

func TestCloseServerContextFreesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := r.server()
	if n, _ := r.eng.Open(); n != 1 {
		t.Fatalf("%d contexts are open after NewServerContext, want 1", n)
	}
	if v := r.ok(r.CloseServerContext(ctx)); v != 0 {
		t.Errorf("CloseServerContext returned %v, want 0", v)
	}
	if n, _ := r.eng.Open(); n != 0 {
		t.Errorf("%d contexts are open after CloseServerContext, want 0", n)
	}
	r.fails(r.CloseServerContext(ctx), kind.Handle)
}
