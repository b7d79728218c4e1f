package rpc

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/vitals"
	"tlsd/session"
)

func TestEveryMethodCanBeNamedAfterACrash(t *testing.T) {
	t.Parallel()
	for name := range methods {
		if !vitals.Known(name) {
			t.Errorf("package vitals does not know %s", name)
		}
	}
}

// notes is a Watcher that records the calls.
type notes struct {
	mu      sync.Mutex
	writing int
	all     []string
	last    string
}

func (n *notes) Writing() { n.mu.Lock(); n.writing++; n.mu.Unlock() }
func (n *notes) Written() { n.mu.Lock(); n.writing--; n.mu.Unlock() }
func (n *notes) Calling(method string, handle int32) {
	n.mu.Lock()
	n.last = fmt.Sprint(method, " ", handle)
	n.all = append(n.all, n.last)
	n.mu.Unlock()
}

// serveWatched serves a session. It returns the caller's side and the result of Serve.
func serveWatched(t *testing.T, cfg Config) (*net.UnixConn, <-chan error) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	caller, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close() })
	caller.SetDeadline(time.Now().Add(2 * time.Minute))
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Session = session.Config{Engine: fakeengine.New(t)}
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), conn, cfg) }()
	return caller, served
}

func TestWatcherKnowsTheCallInFlight(t *testing.T) {
	t.Parallel()
	n := &notes{}
	caller, served := serveWatched(t, Config{Watcher: n})
	fmt.Fprint(caller, `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`+"\n"+
		`{"jsonrpc":"2.0","id":2,"method":"tls.Close","params":[7]}`+"\n")
	caller.CloseWrite()
	if answers, err := io.ReadAll(caller); err != nil || len(answers) == 0 {
		t.Fatalf("%q, %v", answers, err)
	}
	<-served
	want := []string{"tls.Backend 0", " 0", "tls.Close 7", " 0"}
	if fmt.Sprint(n.all) != fmt.Sprint(want) || n.writing != 0 {
		t.Errorf("it was told %q, with %d answers in writing; want %q and 0", n.all,
			n.writing, want)
	}
}

func TestWatcherKnowsOfAnAnswerThatIsWrittenInPart(t *testing.T) {
	t.Parallel()
	n := &notes{}
	caller, served := serveWatched(t, Config{Watcher: n, AnswerTimeout: 50 * time.Millisecond})
	// more answers than fit into a socket that no program reads
	go func() {
		for range 1000 {
			if _, err := fmt.Fprintln(caller, `{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`); err != nil {
				return
			}
		}
	}()
	if err := <-served; err == nil {
		t.Fatal("Serve has no error")
	}
	if n.writing == 0 {
		t.Error("it was told that all answers are written")
	}
}
