package ours

import (
	"context"
	"encoding/json"
	"time"

	"tlsd/rpc/client"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// This file has further methods of a Session, at the in-process level and at the plugin level.
// *client.Client has these methods already, for the daemon level.

type options interface {
	SetOption(ctx context.Context, h client.Handle, name, value string) error
	HandleInfo(ctx context.Context, h client.Handle, name string) (string, error)
	SetCertificate(ctx context.Context, h client.Handle, serverName, certFile,
		keyFile string) error
	Listen(ctx context.Context, ctxHandle client.Handle, host string, port int) (int, error)
	ReadPlain(ctx context.Context, h client.Handle, maxBytes int) ([]byte, error)
	WritePlain(ctx context.Context, h client.Handle, data []byte) (int, error)
	Wait(ctx context.Context, bound time.Duration) (client.Handle, error)
	Shutdown(ctx context.Context, h client.Handle) error
}

func (p *inProcess) Wait(ctx context.Context, bound time.Duration) (client.Handle, error) {
	return p.handle(ctx, func() *session.Call { return p.s.Wait(bound) })
}

func (p *inProcess) Shutdown(ctx context.Context, h client.Handle) error {
	return p.do(ctx, func() *session.Call { return p.s.Shutdown(session.Handle(h)) })
}

func (p *inProcess) SetOption(ctx context.Context, h client.Handle, name, value string) error {
	return p.do(ctx, func() *session.Call {
		return p.s.SetOption(session.Handle(h), name, value)
	})
}

func (p *inProcess) HandleInfo(ctx context.Context, h client.Handle, name string) (string, error) {
	v, err := p.run(ctx, func() *session.Call {
		return p.s.HandleInfo(session.Handle(h), name)
	})
	if all, ok := v.(session.Facts); ok {
		text, err := json.Marshal(all)
		return string(text), err
	}
	text, _ := v.(string)
	return text, err
}

func (p *inProcess) SetCertificate(ctx context.Context, h client.Handle, serverName, certFile,
	keyFile string) error {
	return p.do(ctx, func() *session.Call {
		return p.s.SetCertificate(session.Handle(h), serverName, certFile, keyFile)
	})
}

func (p *inProcess) Listen(ctx context.Context, ctxHandle client.Handle, host string,
	port int) (int, error) {
	return give[int](ctx, p, func() *session.Call {
		return p.s.Listen(session.Handle(ctxHandle), host, port)
	})
}

func (p *inProcess) ReadPlain(ctx context.Context, h client.Handle, maxBytes int) ([]byte, error) {
	return give[[]byte](ctx, p, func() *session.Call {
		return p.s.ReadPlain(session.Handle(h), maxBytes)
	})
}

func (p *inProcess) WritePlain(ctx context.Context, h client.Handle, data []byte) (int, error) {
	return give[int](ctx, p, func() *session.Call {
		return p.s.WritePlain(session.Handle(h), data)
	})
}

func (p *viaPlugin) Wait(ctx context.Context, bound time.Duration) (client.Handle, error) {
	return p.handle(ctx, "Wait", wire.Milliseconds(bound))
}

func (p *viaPlugin) Shutdown(ctx context.Context, h client.Handle) error {
	return p.do(ctx, "Shutdown", h)
}

func (p *viaPlugin) SetOption(ctx context.Context, h client.Handle, name, value string) error {
	return p.do(ctx, "SetOption", h, name, value)
}

func (p *viaPlugin) HandleInfo(ctx context.Context, h client.Handle, name string) (string, error) {
	return p.text(ctx, "Info", h, name)
}

func (p *viaPlugin) SetCertificate(ctx context.Context, h client.Handle, serverName, certFile,
	keyFile string) error {
	return p.do(ctx, "SetCertificate", h, serverName, certFile, keyFile)
}

func (p *viaPlugin) Listen(ctx context.Context, ctxHandle client.Handle, host string,
	port int) (int, error) {
	r, err := p.call(ctx, "Listen", ctxHandle, host, port)
	return int(max(r.N, 0)), err
}

func (p *viaPlugin) ReadPlain(ctx context.Context, h client.Handle, maxBytes int) ([]byte, error) {
	r, err := p.call(ctx, "ReadPlain", h, maxBytes)
	if err != nil {
		return nil, err
	}
	return []byte(r.Text), nil
}

func (p *viaPlugin) WritePlain(ctx context.Context, h client.Handle, data []byte) (int, error) {
	r, err := p.call(ctx, "WritePlain", h, data)
	return int(max(r.N, 0)), err
}
