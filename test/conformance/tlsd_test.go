package conformance

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"tlsd/internal/testd"
	"tlsd/rpc/client"
)

// tlsdEndpoint is a running daemon. Each connection and each listener has a
// session of its own.
type tlsdEndpoint struct{ d *testd.Daemon }

func (tlsdEndpoint) String() string { return "tlsd" }

func (e tlsdEndpoint) dial(t *testing.T, to address, o dialOptions) (stream, error) {
	ctx, c := bounded(t), e.d.Dial(t)
	if o.only != 0 {
		t.Error("tlsd cannot be told which versions to offer: the test must say that it needs that")
	}
	if o.ca != "" {
		if err := c.SetCaBundle(ctx, o.ca); err != nil {
			return nil, err
		}
	}
	h, err := c.NewClient(ctx, to.host, to.port)
	if err != nil {
		return nil, err
	}
	if o.insecure {
		if err := c.SetInsecureSkipVerify(ctx, h, true); err != nil {
			return nil, err
		}
	}
	if err := c.Handshake(ctx, h); err != nil {
		return nil, err
	}
	return &tlsdStream{t, ctx, c, h}, nil
}

func (e tlsdEndpoint) listen(t *testing.T, o listenOptions) listener {
	t.Helper()
	if o.only != 0 {
		t.Error("tlsd cannot be told which versions to offer: the test must say that it needs that")
	}
	l := &tlsdListener{ctx: bounded(t), c: e.d.Dial(t), p: testd.Port(t)}
	var err error
	if l.h, err = l.c.NewServerContext(l.ctx, o.cert.CertFile, o.cert.KeyFile); err != nil {
		t.Fatal(err)
	}
	// tlsd listens from the first Accept on. This one is cancelled; clients that come wait for the next.
	ctx, cancel := context.WithCancel(l.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := l.c.Accept(ctx, l.h, "127.0.0.1", l.p)
		ended <- err
	}()
	testd.AwaitListener(t, l.p)
	cancel()
	if err := failure(<-ended); err == nil || err.Kind != client.KindCancelled {
		t.Fatalf("an Accept that was cancelled: %v", err)
	}
	return l
}

type tlsdListener struct {
	ctx context.Context
	c   *client.Client
	h   client.Handle
	p   int
}

func (l *tlsdListener) port() int { return l.p }

func (l *tlsdListener) accept(t *testing.T) (stream, error) {
	h, err := l.c.Accept(l.ctx, l.h, "127.0.0.1", l.p)
	if err != nil {
		return nil, err
	}
	return &tlsdStream{t, l.ctx, l.c, h}, nil
}

type tlsdStream struct {
	t   *testing.T
	ctx context.Context
	c   *client.Client
	h   client.Handle
}

func (s *tlsdStream) Read(p []byte) (int, error) {
	data, err := s.c.Read(s.ctx, s.h, min(len(p), 1<<24))
	if err != nil {
		return 0, err
	}
	if len(data) == 0 {
		return 0, io.EOF
	}
	return copy(p, data), nil
}

func (s *tlsdStream) Write(p []byte) (int, error) { return s.c.Write(s.ctx, s.h, p) }
func (s *tlsdStream) Close() error                { return s.c.CloseConn(s.ctx, s.h) }

func (s *tlsdStream) peerSubject() string { return s.ask(s.c.PeerCertSubject(s.ctx, s.h)) }
func (s *tlsdStream) version() string     { return s.ask(s.c.Version(s.ctx, s.h)) }

func (s *tlsdStream) ask(answer string, err error) string {
	if err != nil {
		s.t.Error(err)
	}
	return answer
}

func (s *tlsdStream) closeWrite() error { return errors.New("not possible") }
func (s *tlsdStream) cut()              { s.t.Error("tlsd cannot cut a connection") }
func (s *tlsdStream) reset()            { s.t.Error("tlsd cannot reset a connection") }

// failure is the error of a call, or nil if it is none of tlsd's.
func failure(err error) *client.Error {
	var e *client.Error
	errors.As(err, &e)
	return e
}

// mentions says whether the error's text has all of these.
func mentions(e *client.Error, texts ...string) bool {
	for _, text := range texts {
		if !strings.Contains(strings.ToLower(e.Message), strings.ToLower(text)) {
			return false
		}
	}
	return true
}
