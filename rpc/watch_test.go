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
	"tlsd/internal/testkit"
	"tlsd/internal/vitals"
	"tlsd/session"
)

// After a crash in a method, the caller is told the method's name. So package vitals must know the
// name of each method.
func TestEveryMethodCanBeNamedAfterACrash(t *testing.T) {
	t.Parallel()
	for name := range methods {
		if !vitals.Known(name) {
			t.Errorf("package vitals does not know %s", name)
		}
	}
}

// notes is a Watcher that records what it is told.
type notes struct {
	mu      sync.Mutex
	writing int // how many answers have begun and are not written whole
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
	caller.SetDeadline(time.Now().Add(testkit.Patience))
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Session = session.Config{Engine: fakeengine.New(t)}
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), conn, cfg) }()
	return caller, served
}

// The watcher is told of each call when it begins. When no call is in flight any more, it is told
// an empty name.
func TestWatcherKnowsTheCallInFlight(t *testing.T) {
	t.Parallel()
	n := &notes{}
	caller, served := serveWatched(t, Config{Watcher: n})
	fmt.Fprint(caller, `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`+"\n"+
		`{"jsonrpc":"2.0","id":2,"method":"tls.Close","params":[7]}`+"\n")
	caller.CloseWrite()
	if answers, err := io.ReadAll(caller); err != nil || len(answers) == 0 {
		t.Fatalf("the caller has read the answers %q, %v; want answers and no error",
			answers, err)
	}
	<-served
	want := []string{"tls.Backend 0", " 0", "tls.Close 7", " 0"}
	if fmt.Sprint(n.all) != fmt.Sprint(want) || n.writing != 0 {
		t.Errorf("the watcher was told %q, and %d answers are not written whole; want %q "+
			"and 0", n.all, n.writing, want)
	}
}

// If Serve ends while an answer is written in part, the watcher knows it. The supervisor must not
// write a line behind such a part.
func TestWatcherKnowsOfAnAnswerThatIsWrittenInPart(t *testing.T) {
	t.Parallel()
	n := &notes{}
	caller, served := serveWatched(t, Config{Watcher: n, AnswerTimeout: 50 * time.Millisecond})
	// The caller sends more calls than answers fit into the socket, and reads none.
	go func() {
		for range 1000 {
			if _, err := fmt.Fprintln(caller, `{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`); err != nil {
				return
			}
		}
	}()
	if err := <-served; err == nil {
		t.Fatal("the caller reads no answer, but Serve returns nil, want an error")
	}
	if n.writing == 0 {
		t.Error("an answer is written in part, but the watcher was told that all are whole")
	}
}
