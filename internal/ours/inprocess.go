package ours

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/openssl"
	"tlsd/rpc/client"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// InProcess is the [Level] that calls package session in this process, with these timeouts.
type InProcess struct{ Timeouts session.Timeouts }

func (InProcess) String() string { return "in process" }

func (l InProcess) Open(tb testing.TB) Session {
	tb.Helper()
	lib, err := library()
	if err != nil {
		tb.Fatal(err)
	}
	s := &inProcess{s: session.New(session.Config{Engine: session.OpenSSL(lib),
		Timeouts: l.Timeouts})}
	tb.Cleanup(func() { s.Close() })
	return s
}

var library = sync.OnceValues(func() (*openssl.Library, error) {
	l, err := openssl.Load(os.Getenv("TLSD_TEST_LIBSSL"))
	if err != nil {
		return nil, err
	}
	if want := os.Getenv("TLSD_TEST_OPENSSL"); !strings.HasPrefix(l.Version(),
		"OpenSSL "+want) {
		return nil, fmt.Errorf("%s is loaded from %s, and this run is for %s", l.Version(),
			l.Path(), want)
	}
	return l, nil
})

// NothingLeft is an argument for testd.Main, which calls it after all tests. It checks that no
// socket is open, and that the error queues of OpenSSL are empty. Each thread of the process has a
// queue of its own. NothingLeft looks at the queues of 50 threads.
func NothingLeft() error {
	lib, err := library()
	if err != nil {
		return nil // each test that needs the library has failed with this error
	}
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if what, _ := os.Readlink(link); strings.HasPrefix(what, "socket:") {
			return fmt.Errorf("%s is open: %s", link, what)
		}
	}
	const threads = 50
	found, release := make(chan int, threads), make(chan struct{})
	for range threads {
		go func() {
			runtime.LockOSThread() // each goroutine has a thread of its own
			defer runtime.UnlockOSThread()
			found <- lib.QueuedErrors()
			<-release
		}()
	}
	defer close(release)
	for range threads {
		if n := <-found; n != 0 {
			return errors.New("a thread has errors on its OpenSSL queue")
		}
	}
	return nil
}

// inProcess is a session in this process.
type inProcess struct {
	s *session.Session

	// mu guards the field ended. The method run also locks mu to create a session.Call, because
	// two calls of a session must not be created at the same time. It unlocks mu before it runs
	// the call.
	mu    sync.Mutex
	ended bool
	calls sync.WaitGroup
}

// run creates a call, runs it, and returns its result.
func (p *inProcess) run(ctx context.Context, call func() *session.Call) (any, error) {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return nil, &client.Error{Kind: client.KindLost, Message: "the session has ended"}
	}
	c := call()
	p.calls.Add(1)
	p.mu.Unlock()
	defer p.calls.Done()
	defer context.AfterFunc(ctx, c.Cancel)()
	v, err := c.Run()
	var e *session.Error
	if !errors.As(err, &e) {
		return v, err
	}
	told := &client.Error{Code: wire.Codes[e.Kind], Kind: e.Kind, Message: e.Error(),
		Data: wire.ErrorData{Kind: e.Kind, Op: e.Op, Handle: int32(e.Handle),
			Errno: e.Errno, OpenSSL: e.OpenSSL}}
	if v := e.Verify; v != nil {
		told.Data.Verify = &wire.VerifyDetail{Code: v.Code, Reason: v.Reason,
			Depth: v.Depth, Subject: v.Subject, Store: v.Store}
	}
	return nil, told
}

// give calls p.run(), and converts the result to T.
func give[T any](ctx context.Context, p *inProcess, call func() *session.Call) (T, error) {
	v, err := p.run(ctx, call)
	result, _ := v.(T)
	return result, err
}

func (p *inProcess) handle(ctx context.Context, call func() *session.Call) (client.Handle, error) {
	h, err := give[session.Handle](ctx, p, call)
	return client.Handle(h), err
}

func (p *inProcess) do(ctx context.Context, call func() *session.Call) error {
	_, err := p.run(ctx, call)
	return err
}

func (p *inProcess) NewClient(ctx context.Context, host string, port int) (client.Handle, error) {
	return p.handle(ctx, func() *session.Call { return p.s.NewClient(host, port) })
}

func (p *inProcess) Handshake(ctx context.Context, h client.Handle) error {
	return p.do(ctx, func() *session.Call { return p.s.Handshake(session.Handle(h), nil) })
}

func (p *inProcess) Write(ctx context.Context, h client.Handle, data []byte) (int, error) {
	return give[int](ctx, p, func() *session.Call { return p.s.Write(session.Handle(h), data) })
}

func (p *inProcess) Read(ctx context.Context, h client.Handle, maxBytes int) ([]byte, error) {
	return give[[]byte](ctx, p, func() *session.Call {
		return p.s.Read(session.Handle(h), maxBytes)
	})
}

func (p *inProcess) CloseConn(ctx context.Context, h client.Handle) error {
	return p.do(ctx, func() *session.Call { return p.s.Close(session.Handle(h)) })
}

func (p *inProcess) SetInsecureSkipVerify(ctx context.Context, h client.Handle, on bool) error {
	return p.do(ctx, func() *session.Call {
		return p.s.SetInsecureSkipVerify(session.Handle(h), on)
	})
}

func (p *inProcess) SetTimeout(ctx context.Context, h client.Handle, bound time.Duration) error {
	return p.do(ctx, func() *session.Call { return p.s.SetTimeout(session.Handle(h), bound) })
}

func (p *inProcess) NewServerContext(ctx context.Context, certFile,
	keyFile string) (client.Handle, error) {
	return p.handle(ctx, func() *session.Call {
		return p.s.NewServerContext(certFile, keyFile)
	})
}

func (p *inProcess) Accept(ctx context.Context, ctxHandle client.Handle, host string,
	port int) (client.Handle, error) {
	return p.handle(ctx, func() *session.Call {
		return p.s.Accept(session.Handle(ctxHandle), host, port, nil)
	})
}

func (p *inProcess) CloseServerContext(ctx context.Context, ctxHandle client.Handle) error {
	return p.do(ctx, func() *session.Call {
		return p.s.CloseServerContext(session.Handle(ctxHandle))
	})
}

func (p *inProcess) SetCaBundle(ctx context.Context, path string) error {
	return p.do(ctx, func() *session.Call { return p.s.SetCaBundle(path) })
}

func (p *inProcess) PeerCertSubject(ctx context.Context, h client.Handle) (string, error) {
	return give[string](ctx, p, func() *session.Call {
		return p.s.PeerCertSubject(session.Handle(h))
	})
}

func (p *inProcess) Version(ctx context.Context, h client.Handle) (string, error) {
	return give[string](ctx, p, func() *session.Call {
		if h == 0 {
			return p.s.LibraryVersion()
		}
		return p.s.ConnectionVersion(session.Handle(h))
	})
}

func (p *inProcess) LastError(ctx context.Context) (string, error) {
	return give[string](ctx, p, p.s.LastError)
}

func (p *inProcess) Close() error {
	p.mu.Lock()
	first := !p.ended
	p.ended = true
	p.mu.Unlock()
	if first {
		p.s.End()
	}
	p.calls.Wait()
	return nil
}
