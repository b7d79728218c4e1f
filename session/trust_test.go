package session_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// untrusting makes the system's store trust no server.
func untrusting(e *fakeengine.Engine, _ *session.Config) { e.System = nil }

// trusts says whether a new client accepts the rig's server.
func (r *rig) trusts(port int) bool {
	r.t.Helper()
	h := r.handle(r.NewClient("localhost", port))
	_, err := r.start(r.Handshake(h)).wait()
	var e *session.Error
	if err != nil && (!errors.As(err, &e) || e.Kind != kind.Verify) {
		r.t.Fatalf("the handshake fails with %v, want success or kind verify", err)
	}
	r.ok(r.Close(h))
	return err == nil
}

func TestSetCaBundleReplacesTheStoreOfLaterClients(t *testing.T) {
	t.Parallel()
	r := newRig(t, untrusting)
	port := r.echo()
	before := r.handle(r.NewClient("localhost", port))
	if v := r.ok(r.SetCaBundle(r.ca.File)); v != 0 {
		t.Errorf("SetCaBundle returned %v, want 0", v)
	}
	after := r.handle(r.NewClient("localhost", port))
	r.fails(r.Handshake(before), kind.Verify)
	r.ok(r.Handshake(after))

	// Another bundle trusts other servers.
	r.ok(r.SetCaBundle(testcert.NewCA(t, "Other CA").File))
	if r.trusts(port) {
		t.Error("the first bundle is still trusted")
	}
	r.ok(r.Write(after, []byte("the open connection lives on")))
}

func TestSetCaBundleAlsoReplacesTheSystemsStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ok(r.SetCaBundle(testcert.NewCA(t, "Other CA").File))
	if r.trusts(r.echo()) {
		t.Error("the system's store is still trusted")
	}
}

func TestSetCaBundleIsTheSessionsOwn(t *testing.T) {
	t.Parallel()
	r, other := newRig(t, untrusting), newRig(t, untrusting)
	r.ok(r.SetCaBundle(r.ca.File))
	if other.trusts(testkit.Echo(t, r.cert.TLS())) {
		t.Error("another session trusts the bundle")
	}
}

// badFiles are the paths of bad and missing files, each with the text that the error must have.
func badFiles(t *testing.T) map[string]struct{ path, says string } {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	huge := file("huge", nil)
	if err := os.Truncate(huge, 33<<20); err != nil { // a sparse file
		t.Fatal(err)
	}
	const truncated = "-----BEGIN CERTIFICATE-----\nMIIB\n"
	const nonsense = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n"
	return map[string]struct{ path, says string }{
		"missing":           {filepath.Join(dir, "missing"), "no such file or directory"},
		"directory":         {dir, "is a directory"},
		"FIFO":              {fifo, "not a regular file"},
		"device":            {"/dev/zero", "not a regular file"},
		"symbolic loop":     {loop, "too many levels of symbolic links"},
		"through a file":    {filepath.Join(huge, "x"), "not a directory"},
		"empty":             {file("empty", nil), "the file is empty"},
		"oversized":         {huge, "larger than"},
		"relative":          {"ca.pem", "the path must be absolute"},
		"relative, dots":    {"../ca.pem", "the path must be absolute"},
		"binary":            {file("binary", []byte{0, 1, 2, 0xff}), ""},
		"text":              {file("text", []byte("hello\n")), ""},
		"truncated PEM":     {file("cut", []byte(truncated)), ""},
		"nonsense in PEM":   {file("nonsense", []byte(nonsense)), ""},
		"NUL, by mistake":   {"/tmp/a\x00b", "invalid argument"},
		"overly long name":  {"/" + strings.Repeat("x", 300), "file name too long"},
		"nothing but slash": {"/", "is a directory"},
	}
}

func TestBadCaBundleKeepsTheOldStore(t *testing.T) {
	t.Parallel()
	for name, c := range badFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, untrusting)
			port := r.echo()
			e := r.fails(r.SetCaBundle(c.path), kind.File)
			if !strings.Contains(e.Why, c.says) {
				t.Errorf("the error is %q, want one that says %q", e, c.says)
			}
			if shown := strings.ReplaceAll(c.path, "\x00", `\x00`); !strings.Contains(e.Error(), shown) {
				t.Errorf("the error does not name the file: %q", e)
			}
			if e.Op != "tls.SetCaBundle" || e.Handle != 0 {
				t.Errorf("the error names %s, handle %d; want tls.SetCaBundle, "+
					"handle 0", e.Op, e.Handle)
			}
			if r.trusts(port) {
				t.Error("a server is trusted, but the system's store trusts none")
			}
			r.ok(r.SetCaBundle(r.ca.File))
			r.fails(r.SetCaBundle(c.path), kind.File)
			if !r.trusts(port) {
				t.Error("the server is not trusted, but the bundle trusts it")
			}
		})
	}
}

func TestUnreadableFileNamesItsErrno(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if e := r.fails(r.SetCaBundle("/nonexistent/ca.pem"), kind.File); e.Errno != "ENOENT" {
		t.Errorf("errno is %q, want ENOENT", e.Errno)
	}
}

func TestClientsMadeBeforeTheBundleIsReadWaitForIt(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.ParseCABundle)
	r := newRig(t, untrusting, g.install)
	port := r.echo()
	bundle := r.start(r.SetCaBundle(r.ca.File))
	await(t, g.first(), "the parsing of the bundle")
	made := make(chan *session.Call, 1)
	// The function NewClient must not wait for the bundle. Only the Call that it returns waits.
	go func() { made <- r.NewClient("localhost", port) }()
	var client *running
	select {
	case c := <-made:
		client = r.start(c)
	case <-t.Context().Done():
	}
	handshake := r.Handshake(1)
	select {
	case <-client.done:
		t.Error("the call of NewClient did not wait for the bundle")
	case <-time.After(50 * time.Millisecond): // in this time the call must not end
	}
	g.release <- nil
	bundle.ok()
	client.ok()
	r.ok(handshake)
}

// TestLoadingAStoreHoldsUpNoCall: while the engine loads a store, other calls can be made.
func TestLoadingAStoreHoldsUpNoCall(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.NewClientContext)
	r := newRig(t, g.install)
	port := r.echo()
	first := r.start(r.NewClient("localhost", port))
	await(t, g.first(), "the loading of the store")
	made := make(chan struct{})
	var calls []*session.Call
	go func() {
		defer close(made)
		calls = append(calls, r.NewClient("localhost", port), r.SetCaBundle("/nonexistent"),
			r.Backend(), r.NewClient("localhost", port))
	}()
	await(t, made, "calls to be made while a store is loaded")
	r.ok(calls[2])
	g.release <- nil
	first.ok()
	r.ok(calls[0])
	r.fails(calls[1], kind.File)
	r.ok(calls[3])
}

func TestSupersededStoresAreFreed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port := r.echo()
	open := func() int { n, _ := r.eng.Open(); return n }
	if open() != 0 {
		t.Fatal("a context exists before the first client")
	}
	h := r.client(port)
	if open() != 1 {
		t.Fatalf("%d contexts for the system's store, want 1", open())
	}
	r.ok(r.Close(r.client(port)))
	if open() != 1 {
		t.Fatalf("after a second client %d contexts are open, want 1", open())
	}
	for i := range 3 {
		r.ok(r.SetCaBundle(r.ca.File))
		if open() != 1 || r.eng.Freed() != i+1 {
			t.Errorf("after %d good bundles %d contexts are open and %d freed; want "+
				"1 open, and one freed for each bundle", i+1, open(), r.eng.Freed())
		}
	}
	for range 3 {
		r.fails(r.SetCaBundle("/nonexistent"), kind.File)
	}
	if open() != 1 || r.eng.Freed() != 3 {
		t.Errorf("after failed bundles %d contexts are open and %d freed, want 1 and 3",
			open(), r.eng.Freed())
	}
	r.ok(r.SetCaBundle(r.ca.File))
	if open() != 1 || r.eng.Freed() != 4 {
		t.Errorf("after one more good bundle %d contexts are open and %d freed, want 1 "+
			"and 4", open(), r.eng.Freed())
	}
	r.ok(r.Write(h, []byte("x"))) // the store that has verified h is freed, but h still works
	r.End()
	if open() != 0 {
		t.Errorf("%d contexts are open after the session's end, want 0", open())
	}
}

// TestStoreLivesAsLongAsAClientThatIsToUseIt: a client is made, and SetCaBundle replaces the store
// before the client's handshake. The old store is freed only after this handshake.
func TestStoreLivesAsLongAsAClientThatIsToUseIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, untrusting)
	port := r.echo()
	r.ok(r.SetCaBundle(r.ca.File))
	client := r.NewClient("localhost", port)
	r.ok(r.SetCaBundle(testcert.NewCA(t, "Other CA").File))
	if r.eng.Freed() != 0 {
		t.Fatal("the store was freed before its client had run")
	}
	h := r.handle(client)
	if r.eng.Freed() != 0 {
		t.Error("the store was freed before its client's handshake")
	}
	r.ok(r.Handshake(h))
	if r.eng.Freed() != 1 {
		t.Errorf("%d stores are freed, want 1", r.eng.Freed())
	}
}

// TestManyFailedBundlesCostNothing: a store that could not be loaded has a fallback, the store
// before it. After many failed bundles, a client must not have to go through a long list of
// fallbacks.
func TestManyFailedBundlesCostNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var calls []*session.Call
	for range 1000 {
		calls = append(calls, r.SetCaBundle("relative"))
	}
	client := r.NewClient("localhost", r.echo())
	for _, c := range calls {
		r.fails(c, kind.File)
	}
	h := r.handle(client)
	r.ok(r.Handshake(h))
	if n := r.TrustDepth(); n > 2 {
		t.Errorf("a client goes through %d stores, each the fallback of the one before; "+
			"want 2 at most", n)
	}
}

// TestEngineRefusesTheStore: the caller gets the engine's reason.
func TestEngineRefusesTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t, failing(fakeengine.NewClientContext, errors.New("no room")))
	e := r.fails(r.SetCaBundle(r.ca.File), kind.File)
	if !strings.Contains(e.Why, "no room") {
		t.Errorf("the error is %v, want \"no room\" in it", e)
	}
	r.fails(r.NewClient("localhost", r.echo()), kind.Internal)
}
