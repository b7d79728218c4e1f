// Package ours gives tests a TLS client or server made by this project, at one of three levels:
//
//   - in process: package session over package openssl, in the test's own process, without daemon,
//     worker or messages;
//   - daemon: a running tlsd, called by rpc/client;
//   - plugin: TlsPlugin.so in a host in C, with a running tlsd behind it.
//
// A test that takes a [Level] makes the same calls at every level, and expects the same errors with
// the same texts. At the plugin level an error has nothing but its text. See [Untold].
//
// The in-process level uses the libssl that openssl.Load finds, or that TLSD_TEST_LIBSSL names.
// TLSD_TEST_OPENSSL can require its version ("3.5").
package ours

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// A Session has the functions of the plugin's interface; package client describes them. The error
// of a call is a *client.Error. Several calls may run at once. When ctx ends, its call is
// cancelled. At the plugin level this cancels all calls of the session.
type Session interface {
	NewClient(ctx context.Context, host string, port int) (client.Handle, error)
	Handshake(ctx context.Context, h client.Handle) error
	Write(ctx context.Context, h client.Handle, data []byte) (int, error)
	Read(ctx context.Context, h client.Handle, maxBytes int) ([]byte, error)
	CloseConn(ctx context.Context, h client.Handle) error
	SetInsecureSkipVerify(ctx context.Context, h client.Handle, on bool) error
	SetTimeout(ctx context.Context, h client.Handle, bound time.Duration) error
	NewServerContext(ctx context.Context, certFile, keyFile string) (client.Handle, error)
	Accept(ctx context.Context, ctxHandle client.Handle, host string,
		port int) (client.Handle, error)
	CloseServerContext(ctx context.Context, ctxHandle client.Handle) error
	SetCaBundle(ctx context.Context, path string) error
	PeerCertSubject(ctx context.Context, h client.Handle) (string, error)
	Version(ctx context.Context, h client.Handle) (string, error)
	LastError(ctx context.Context) (string, error)
	options
	// Close ends the session, and cuts its connections without close_notify.
	Close() error
}

// A Level opens sessions, all of the same kind: in process, by the daemon, or by the plugin.
type Level interface {
	String() string
	// Open opens a session, which is closed at the end of the test.
	Open(testing.TB) Session
}

// Untold is the Kind of an error at the plugin level, because there a test gets only the error's
// text. The Data of such an error is empty.
const Untold client.Kind = ""

// Failure returns the *client.Error in err. It returns nil if there is none.
func Failure(err error) *client.Error {
	var e *client.Error
	errors.As(err, &e)
	return e
}

// Is says whether err is a *client.Error of this kind. An error with the Kind Untold counts as one
// of every kind.
func Is(err error, kind client.Kind) bool {
	e := Failure(err)
	return e != nil && (e.Kind == kind || e.Kind == Untold)
}

// Daemon is the level of a running daemon.
type Daemon struct{ D *testd.Daemon }

func (Daemon) String() string               { return "daemon" }
func (l Daemon) Open(tb testing.TB) Session { tb.Helper(); return l.D.Dial(tb) }

// A Stream is a connection as an io.ReadWriteCloser. Read and Write need a handshake that has
// succeeded. Read returns io.EOF after the peer's close_notify. One Read and one Write may run at
// the same time.
type Stream struct {
	TB  testing.TB
	Ctx context.Context // of all calls
	S   Session
	H   client.Handle
}

var _ io.ReadWriteCloser = (*Stream)(nil)

func (s *Stream) Read(p []byte) (int, error) {
	data, err := s.S.Read(s.Ctx, s.H, min(len(p), 1<<24))
	if err != nil {
		return 0, err
	}
	if len(data) == 0 {
		return 0, io.EOF
	}
	return copy(p, data), nil
}

func (s *Stream) Write(p []byte) (int, error) { return s.S.Write(s.Ctx, s.H, p) }

// Close ends the connection. The session remains.
func (s *Stream) Close() error { return s.S.CloseConn(s.Ctx, s.H) }

// PeerSubject is the subject of the peer's certificate. Version is the version of TLS. If one of
// these calls fails, the test fails.
func (s *Stream) PeerSubject() string { return s.ask(s.S.PeerCertSubject(s.Ctx, s.H)) }
func (s *Stream) Version() string     { return s.ask(s.S.Version(s.Ctx, s.H)) }

func (s *Stream) ask(answer string, err error) string {
	if err != nil {
		s.TB.Error(err)
	}
	return answer
}

// Trust says which servers a client accepts.
type Trust struct {
	CA       string // file with the authorities; empty: the system's
	Insecure bool   // accept every server
}

// Dial opens a session, connects to the host and port, and does the handshake. If the handshake
// fails, Dial returns the error, and also the Stream.
func Dial(ctx context.Context, tb testing.TB, l Level, host string, port int,
	trust Trust) (*Stream, error) {
	s := &Stream{tb, ctx, l.Open(tb), 0}
	if trust.CA != "" {
		if err := s.S.SetCaBundle(ctx, trust.CA); err != nil {
			return nil, err
		}
	}
	var err error
	if s.H, err = s.S.NewClient(ctx, host, port); err != nil {
		return nil, err
	}
	if trust.Insecure {
		if err := s.S.SetInsecureSkipVerify(ctx, s.H, true); err != nil {
			return nil, err
		}
	}
	return s, s.S.Handshake(ctx, s.H)
}

// A Listener is a server context that listens on 127.0.0.1.
type Listener struct {
	TB   testing.TB
	Ctx  context.Context // of all calls
	S    Session
	H    client.Handle // the handle of the server context
	Port int
}

// Listen opens a session, and listens on a free port. The session's next handle is 3. Handle 1 is
// the server context. To listen, Listen makes an Accept and cancels it, which uses up the number 2.
func Listen(ctx context.Context, tb testing.TB, l Level, certFile, keyFile string) *Listener {
	tb.Helper()
	ln := &Listener{tb, ctx, l.Open(tb), 0, testkit.Port(tb)}
	var err error
	if ln.H, err = ln.S.NewServerContext(ctx, certFile, keyFile); err != nil {
		tb.Fatal(err)
	}
	// The first Accept makes the context listen. Listen then cancels this Accept. Clients that
	// connect from now on wait for the next Accept.
	short, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := ln.S.Accept(short, ln.H, "127.0.0.1", ln.Port)
		ended <- err
	}()
	testd.AwaitListener(tb, ln.Port)
	cancel()
	if err := <-ended; !Is(err, client.KindCancelled) {
		tb.Fatalf("an Accept that was cancelled: %v", err)
	}
	return ln
}

// Accept waits for a client and its handshake.
func (l *Listener) Accept() (*Stream, error) {
	h, err := l.S.Accept(l.Ctx, l.H, "127.0.0.1", l.Port)
	if err != nil {
		return nil, err
	}
	return &Stream{l.TB, l.Ctx, l.S, h}, nil
}
