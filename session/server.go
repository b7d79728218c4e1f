package session

import (
	"context"
	"maps"
	"strings"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
	"tlsd/openssl"
)

// How a server context changes. The engine's context never does; another one takes its place, for
// handshakes from now on. So nothing that is under way is disturbed, and if the new one cannot be
// made, the old one stays. The context keeps its certificates and keys for that.

// maxNames is for how many names a context has certificates at most. The library keeps what each
// needs, also for connections that have begun before a change.
const maxNames = 256

// load makes the context's first engine context, of files.
func (c *serverContext) load(ctx context.Context, certFile, keyFile string) error {
	if err := c.s.available(); err != nil {
		return err
	}
	return c.setCertificate(ctx, "tls.NewServerContext", "", certFile, keyFile)
}

// current gives a copy of the options, to be changed. c.changing must be held.
func (c *serverContext) current() serverOptions {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	o := c.options
	o.config.Hosts = maps.Clone(o.config.Hosts)
	o.sources = maps.Clone(o.sources)
	return o
}

// identify gives the options an identity, the context's own if there is no name.
func (o *serverOptions) identify(name string, id openssl.Identity, from source) {
	if name == "" {
		o.config.Default = id
	} else {
		if o.config.Hosts == nil {
			o.config.Hosts = map[string]openssl.Identity{}
		}
		o.config.Hosts[name] = id
	}
	if o.sources == nil {
		o.sources = map[string]source{}
	}
	o.sources[name] = from
}

// renew makes the options hold.
func (c *serverContext) renew(next serverOptions) error {
	s := c.s
	e, err := s.Engine.NewServer(next.config)
	if err != nil {
		return err
	}
	if next.tls13 || s.Policy.RequiresTLS13() {
		e.RequireTLS13()
	}
	s.mu.Lock()
	c.options = next
	c.shows(next.sources)
	s.mu.Unlock()
	c.use(e)
	return nil
}

// identity reads a certificate chain and its key.
func (s *Session) identity(op, certFile, keyFile string) (id openssl.Identity, from source, err error) {
	from = source{certFile: certFile, keyFile: keyFile}
	id.Name = certFile + ", key " + keyFile
	id.Cert, from.cert, err = readFile(certFile, maxCert, s.within(op, policy.KeyKeyFolders, s.Policy.KeyFolders, certFile))
	if err == nil {
		id.Key, from.key, err = readFile(keyFile, maxKey, s.within(op, policy.KeyKeyFolders, s.Policy.KeyFolders, keyFile))
	}
	from.leaf = firstCertificate(id.Cert)
	return id, from, err
}

// SetCertificate gives a connection the certificate that it shows if the server asks for one,
// before its handshake, or a context another one. There, without a serverName, it replaces the
// context's own; a name, or "*." and a name, adds or replaces the certificate for clients that ask
// for it. The files are read and checked first; if they are bad, nothing changes. Paths must be
// absolute. The result is 0.
func (s *Session) SetCertificate(h Handle, serverName, certFile, keyFile string) *Call {
	const op = "tls.SetCertificate"
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts[h] != nil {
		return s.onContext(op, h, func(ctx context.Context, c *serverContext) (any, error) {
			return 0, c.setCertificate(ctx, op, serverName, certFile, keyFile)
		})
	}
	return s.onConnection(op, h, ctlLane, func(ctx context.Context, c *connection) (any, error) {
		return 0, c.setCertificate(ctx, op, serverName, certFile, keyFile)
	})
}

func (c *serverContext) setCertificate(ctx context.Context, op, serverName, certFile, keyFile string) error {
	name, err := hostPattern(serverName)
	if err != nil {
		return err
	}
	id, from, err := c.s.identity(op, certFile, keyFile)
	if err != nil {
		return classify(ctx, err, kind.File)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	next := c.current()
	if _, there := next.config.Hosts[name]; name != "" && !there && len(next.config.Hosts) >= maxNames {
		return fail(kind.Limit, "serverName %s: the context has certificates for %d names, the most that one can have; use another context, or a name with *.",
			name, len(next.config.Hosts))
	}
	next.identify(name, id, from)
	if err := c.renew(next); err != nil {
		return unusable(certFile, keyFile, err)
	}
	c.s.loaded(from)
	return nil
}

func (c *connection) setCertificate(ctx context.Context, op, serverName, certFile, keyFile string) error {
	s := c.s
	s.mu.Lock()
	err := c.unshaken()
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case c.accepted:
		return fail(kind.State, "an accepted connection shows its context's certificate; set that")
	case serverName != "":
		return fail(kind.Params, "serverName %.80q: a connection has one certificate, and takes no name", serverName)
	}
	id, from, err := s.identity(op, certFile, keyFile)
	if err != nil {
		return classify(ctx, err, kind.File)
	}
	// A server's context checks what OpenSSL would say of them only at the handshake.
	e, err := s.Engine.NewServer(openssl.ServerConfig{Default: id})
	if err != nil {
		return unusable(certFile, keyFile, err)
	}
	e.Free()
	s.mu.Lock()
	c.begin.settings.Identity = &id
	s.mu.Unlock()
	s.loaded(from)
	return nil
}

func unusable(certFile, keyFile string, err error) *Error {
	return fail(kind.File, "certificate %s, key %s: %v", certFile, keyFile, err)
}

// hostPattern reads a DNS name, or "*." and one; "" is none.
func hostPattern(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	name, wild := strings.CutPrefix(s, "*.")
	h, err := policy.ParseHost(strings.TrimSuffix(name, "."))
	if err != nil {
		return "", fail(kind.Params, "serverName: %v", err)
	}
	if _, isAddr := h.Addr(); isAddr {
		return "", fail(kind.Params, "serverName %q: an address is never asked for (RFC 6066 section 3); give a name, or nothing for the context's own certificate", s)
	}
	if wild {
		return "*." + h.String(), nil
	}
	return h.String(), nil
}
