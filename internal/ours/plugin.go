package ours

import (
	"context"
	"errors"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testhost"
	"tlsd/rpc/client"
	"tlsd/rpc/wire"
)

// Plugin is the level at which a test calls the plugin (see ours.go). Each session has a host
// process of its own.
type Plugin struct {
	D *testd.Daemon
	// StrictWrites makes each Write wait until its data is sent. So if the send fails, the
	// Write itself returns the error, as at the other levels. By default a Write does not wait,
	// and a later call may return the error.
	StrictWrites bool
}

func (Plugin) String() string { return "plugin" }

func (l Plugin) Open(tb testing.TB) Session {
	tb.Helper()
	env := []string{"TLSD_SOCKET=" + l.D.Socket}
	if l.StrictWrites {
		env = append(env, "TLSD_STRICT_WRITES=1")
	}
	h, err := testhost.Start(testhost.Options{Program: testd.Host(tb),
		Library: testd.Plugin(tb), Env: env})
	if err != nil {
		tb.Fatal(err)
	}
	s := &viaPlugin{h}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// viaPlugin is a Session that calls the plugin in a host process.
type viaPlugin struct{ h *testhost.Host }

// call calls a function of the plugin, in a new thread of the host.
func (p *viaPlugin) call(ctx context.Context, op string, args ...any) (testhost.Result, error) {
	if err := ctx.Err(); err != nil {
		return testhost.Result{}, &client.Error{Message: err.Error()}
	}
	c, err := p.h.Send("&"+op, args...)
	if err != nil {
		return testhost.Result{}, &client.Error{Message: err.Error()}
	}
	// tls_Cancel cancels all calls of the session. So a context of a test must not end while
	// calls with another context run.
	stop := context.AfterFunc(ctx, func() { p.h.Send("Cancel") })
	defer stop()
	r, err := c.Wait()
	if err != nil {
		return r, &client.Error{Message: err.Error()}
	}
	if r.N < 0 {
		return r, &client.Error{Message: r.Text}
	}
	return r, nil
}

func (p *viaPlugin) handle(ctx context.Context, op string, args ...any) (client.Handle, error) {
	r, err := p.call(ctx, op, args...)
	return client.Handle(r.N), err
}

func (p *viaPlugin) do(ctx context.Context, op string, args ...any) error {
	_, err := p.call(ctx, op, args...)
	return err
}

func (p *viaPlugin) text(ctx context.Context, op string, args ...any) (string, error) {
	r, err := p.call(ctx, op, args...)
	return r.Text, err
}

func (p *viaPlugin) NewClient(ctx context.Context, host string, port int) (client.Handle, error) {
	return p.handle(ctx, "NewClient", host, port)
}

func (p *viaPlugin) Handshake(ctx context.Context, h client.Handle) error {
	return p.do(ctx, "Handshake", h)
}

func (p *viaPlugin) Write(ctx context.Context, h client.Handle, data []byte) (int, error) {
	r, err := p.call(ctx, "Write", h, data)
	return int(max(r.N, 0)), err
}

func (p *viaPlugin) Read(ctx context.Context, h client.Handle, maxBytes int) ([]byte, error) {
	r, err := p.call(ctx, "Read", h, maxBytes)
	if err != nil {
		return nil, err
	}
	return []byte(r.Text), nil
}

func (p *viaPlugin) CloseConn(ctx context.Context, h client.Handle) error {
	return p.do(ctx, "Close", h)
}

func (p *viaPlugin) SetInsecureSkipVerify(ctx context.Context, h client.Handle, on bool) error {
	number := 0
	if on {
		number = 1
	}
	return p.do(ctx, "SetInsecureSkipVerify", h, number)
}

func (p *viaPlugin) SetTimeout(ctx context.Context, h client.Handle, bound time.Duration) error {
	return p.do(ctx, "SetTimeout", h, wire.Milliseconds(bound))
}

func (p *viaPlugin) NewServerContext(ctx context.Context, certFile,
	keyFile string) (client.Handle, error) {
	return p.handle(ctx, "NewServerContext", certFile, keyFile)
}

func (p *viaPlugin) Accept(ctx context.Context, ctxHandle client.Handle, host string,
	port int) (client.Handle, error) {
	return p.handle(ctx, "Accept", ctxHandle, host, port)
}

func (p *viaPlugin) CloseServerContext(ctx context.Context, ctxHandle client.Handle) error {
	return p.do(ctx, "CloseServerContext", ctxHandle)
}

func (p *viaPlugin) SetCaBundle(ctx context.Context, path string) error {
	return p.do(ctx, "SetCaBundle", path)
}

func (p *viaPlugin) PeerCertSubject(ctx context.Context, h client.Handle) (string, error) {
	return p.text(ctx, "PeerCertSubject", h)
}

func (p *viaPlugin) Version(ctx context.Context, h client.Handle) (string, error) {
	return p.text(ctx, "Version", h)
}

func (p *viaPlugin) LastError(ctx context.Context) (string, error) {
	return p.text(ctx, "LastError")
}

// Close cancels the calls that still run, and then ends the host.
func (p *viaPlugin) Close() error {
	if c, err := p.h.Send("Cancel"); err == nil {
		c.Wait()
	}
	return errors.Join(p.h.End())
}
