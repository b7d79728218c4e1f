package session

import (
	"context"
	"maps"
	"strings"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
	"tlsd/openssl"
)

// A server context can change, but an engine context does not. For a change, the server context
// makes a new engine context for later handshakes. So a change does not disturb handshakes and
// connections that exist. If the new engine context cannot be made, the old one stays in use. To
// make engine contexts, the server context keeps its certificates and keys in memory.

// maxNames is the most names for which a context has certificates. OpenSSL keeps memory for each
// name, and connections that began before a change keep the old names in memory, too.
const maxNames = 256

// load makes the context's first engine context.
func (c *serverContext) load(ctx context.Context, certFile, keyFile string) error {
	if err := c.s.available(); err != nil {
		return err
	}
	return c.setCertificate(ctx, "tls.NewServerContext", "", certFile, keyFile)
}

// copyOptions returns a copy of the options. The caller may change the copy. c.changeMu must be
// held.
func (c *serverContext) copyOptions() serverOptions {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	o := c.options
	o.config.Hosts = maps.Clone(o.config.Hosts)
	o.sources = maps.Clone(o.sources)
	return o
}

// setIdentity sets the certificate and the key for a name. With the name "" it sets the context's
// own certificate and key.
func (o *serverOptions) setIdentity(name string, id openssl.Identity, from source) {
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

// apply replaces the context's options by next, for later handshakes. If it fails, nothing changes.
// c.changeMu must be held.
func (c *serverContext) apply(next serverOptions) error {
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
	c.replaceEngine(e)
	return nil
}

// identity reads a certificate chain and its key.
func (s *Session) identity(op, certFile, keyFile string) (
	id openssl.Identity, from source, err error) {
	from = source{certFile: certFile, keyFile: keyFile}
	id.Name = certFile + ", key " + keyFile
	within := func(path string) opener {
		return s.within(op, policy.KeyKeyFolders, s.Policy.KeyFolders, path)
	}
	id.Cert, from.cert, err = readFile(certFile, maxCert, within(certFile))
	if err == nil {
		id.Key, from.key, err = readFile(keyFile, maxKey, within(keyFile))
	}
	from.leaf = firstCertificate(id.Cert)
	return id, from, err
}

// SetCertificate sets a certificate of a connection or a context. The files are checked first. If
// they are bad, nothing changes. Paths must be absolute. The result is 0.
//
// A connection must be a client's, and its handshake must not have begun. The client shows the
// certificate if the server asks for one. serverName must be empty.
//
// On a context, serverName is "", a DNS name, or "*." and a DNS name. With "", the certificate
// replaces the context's own. Otherwise the context shows the certificate to clients that ask for a
// matching name. A new certificate for the same serverName replaces the old one.
func (s *Session) SetCertificate(h Handle, serverName, certFile, keyFile string) *Call {
	const op = "tls.SetCertificate"
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts[h] != nil {
		return s.onContext(op, h, func(ctx context.Context, c *serverContext) (any, error) {
			return 0, c.setCertificate(ctx, op, serverName, certFile, keyFile)
		})
	}
	run := func(ctx context.Context, c *connection) (any, error) {
		return 0, c.setCertificate(ctx, op, serverName, certFile, keyFile)
	}
	return s.onConnection(op, h, controlLane, run)
}

func (c *serverContext) setCertificate(ctx context.Context,
	op, serverName, certFile, keyFile string) error {
	name, err := hostPattern(serverName)
	if err != nil {
		return err
	}
	id, from, err := c.s.identity(op, certFile, keyFile)
	if err != nil {
		return classify(ctx, err, kind.File)
	}
	c.changeMu.Lock()
	defer c.changeMu.Unlock()
	next := c.copyOptions()
	_, there := next.config.Hosts[name]
	if name != "" && !there && len(next.config.Hosts) >= maxNames {
		return fail(kind.Limit,
			"serverName %s: the context has certificates for %d names, the limit of a "+
				"context; use another context, or a pattern such as *.example.com",
			name, len(next.config.Hosts))
	}
	next.setIdentity(name, id, from)
	if err := c.apply(next); err != nil {
		return unusable(certFile, keyFile, err)
	}
	c.s.reportCertificate(from)
	return nil
}

func (c *connection) setCertificate(ctx context.Context,
	op, serverName, certFile, keyFile string) error {
	s := c.s
	s.mu.Lock()
	err := c.checkBeforeHandshake()
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case c.accepted:
		return fail(kind.State,
			"an accepted connection shows its context's certificate; "+
				"call tls.SetCertificate on the context")
	case serverName != "":
		return fail(kind.Params,
			"serverName %.80q: a connection has one certificate, and takes no name",
			serverName)
	}
	id, from, err := s.identity(op, certFile, keyFile)
	if err != nil {
		return classify(ctx, err, kind.File)
	}
	// This engine context is only made so that OpenSSL checks the files now, and not at the
	// handshake.
	e, err := s.Engine.NewServer(openssl.ServerConfig{Default: id})
	if err != nil {
		return unusable(certFile, keyFile, err)
	}
	e.Free()
	s.mu.Lock()
	c.setup.settings.Identity = &id
	s.mu.Unlock()
	s.reportCertificate(from)
	return nil
}

func unusable(certFile, keyFile string, err error) *Error {
	return fail(kind.File, "certificate %s, key %s: %v", certFile, keyFile, err)
}

// hostPattern checks a DNS name, or "*." and a DNS name, or "". It returns the normal form.
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
		return "", fail(kind.Params,
			"serverName %q: a client cannot ask for an address (RFC 6066 section 3); "+
				"give a name, or nothing for the context's own certificate", s)
	}
	if wild {
		return "*." + h.String(), nil
	}
	return h.String(), nil
}
