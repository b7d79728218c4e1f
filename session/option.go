package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
	"tlsd/openssl"
)

// The options of handles. An option of a connection must come before its handshake, except for the
// option watch (see wait.go). An option of a context is for clients that come later. An unknown
// name is an error of kind "params", which lists the known names.

// A connOption is an option of a connection.
type connOption struct {
	name   string
	values string // the possible values, for errors
	client bool   // an option of clients: refused on accepted connections
	// parse checks a value, and returns the function that sets the option. parse may read
	// files, so s.mu must not be held. The function that it returns is called with s.mu held.
	parse func(s *Session, value string) (func(*connSetup), error)
}

var connOptions = []connOption{
	{"alpn", "names with commas between them, such as h2,http/1.1, or nothing", true,
		func(_ *Session, v string) (func(*connSetup), error) {
			list, err := protocols(v)
			return func(b *connSetup) { b.settings.ALPN = list }, err
		}},
	{"server-name", "a host name or an address", true,
		func(_ *Session, v string) (func(*connSetup), error) {
			h, err := policy.ParseHost(v)
			return func(b *connSetup) { b.serverName = h.String() }, err
		}},
	{"ca", "the absolute path of a PEM file, or nothing for the system's store", true, parseCA},
	{"pins", "one or more hashes with commas between them, each sha256: and 64 hexadecimal " +
		"digits, or nothing", true, func(_ *Session, v string) (func(*connSetup), error) {
		list, err := pins(v)
		return func(b *connSetup) { b.settings.Pins = list }, err
	}},
	{"min-version", "1.2 or 1.3", true,
		func(_ *Session, v string) (func(*connSetup), error) {
			tls13, err := choice(v, "1.2", "1.3")
			return func(b *connSetup) { b.settings.TLS13 = tls13 == 1 }, err
		}},
	{"eof", "strict or lax", false,
		func(_ *Session, v string) (func(*connSetup), error) {
			lax, err := choice(v, "strict", "lax")
			return func(b *connSetup) { b.lax = lax == 1 }, err
		}},
	{"session-resumption", "on or off", true,
		func(_ *Session, v string) (func(*connSetup), error) {
			off, err := choice(v, "on", "off")
			return func(b *connSetup) { b.noResumption = off == 1 }, err
		}},
}

// A contextOption is an option of a server context. parse changes a copy of the options.
type contextOption struct {
	name   string
	values string
	parse  func(s *Session, value string, o *serverOptions) error
}

// serverOptions are the options of a context. A change makes a copy, and replaces the old options
// with it.
type serverOptions struct {
	config openssl.ServerConfig
	tls13  bool
	skip   bool // Accept skips failed handshakes
	later  bool
	reload bool

	sources  map[string]source // files of the certificates and keys, by server name
	clientCA fs.FileInfo       // the file of client-ca; nil: there is none
}

var contextOptions = []contextOption{
	{"alpn", "names with commas between them, such as h2,http/1.1, or nothing",
		func(_ *Session, v string, o *serverOptions) (err error) {
			o.config.ALPN, err = protocols(v)
			return err
		}},
	{"min-version", "1.2 or 1.3",
		func(_ *Session, v string, o *serverOptions) error {
			n, err := choice(v, "1.2", "1.3")
			o.tls13 = n == 1
			return err
		}},
	{"client-ca", "the absolute path of a PEM file",
		func(s *Session, v string, o *serverOptions) (err error) {
			return s.readClientCA(opSetOption, v, o)
		}},
	{"client-cert", "none, request or require",
		func(_ *Session, v string, o *serverOptions) error {
			n, err := choice(v, "none", "request", "require")
			if err == nil && n > 0 && o.config.ClientCAs == nil {
				return fail(kind.State,
					"client-cert %s: set the option client-ca first", v)
			}
			o.config.ClientAuth = openssl.ClientAuth(n)
			return err
		}},
	{"session-resumption", "on or off",
		func(_ *Session, v string, o *serverOptions) error {
			n, err := choice(v, "on", "off")
			o.config.NoResumption = n == 1
			return err
		}},
	{"failed-handshakes", "raise or skip",
		func(_ *Session, v string, o *serverOptions) error {
			n, err := choice(v, "raise", "skip")
			o.skip = n == 1
			return err
		}},
	{"handshake", "accept or later",
		func(_ *Session, v string, o *serverOptions) error {
			n, err := choice(v, "accept", "later")
			o.later = n == 1
			return err
		}},
	{"reload", "off or auto",
		func(_ *Session, v string, o *serverOptions) error {
			n, err := choice(v, "off", "auto")
			o.reload = n == 1
			return err
		}},
}

const opSetOption = "tls.SetOption"

// SetOption sets an option of a connection or a context. The result is 0.
func (s *Session) SetOption(h Handle, name, value string) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts[h] != nil {
		run := func(ctx context.Context, c *serverContext) (any, error) {
			return 0, c.setOption(ctx, name, value)
		}
		return s.onContext(opSetOption, h, run)
	}
	run := func(ctx context.Context, c *connection) (any, error) {
		return 0, c.setOption(ctx, name, value)
	}
	return s.onConnection(opSetOption, h, controlLane, run)
}

func (c *connection) setOption(ctx context.Context, name, value string) error {
	if name == optWatch {
		return c.setWatch(value)
	}
	i := slices.IndexFunc(connOptions, func(o connOption) bool { return o.name == name })
	if i < 0 {
		known := optionNames(connOptions, func(o connOption) string { return o.name })
		return unknownOption(name, "a connection", known)
	}
	o := &connOptions[i]
	s := c.s
	s.mu.Lock()
	err := c.checkBeforeHandshake()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if o.client && c.accepted {
		why := fmt.Sprintf("%s is an option of clients, and this is an accepted connection",
			name)
		if isContextOption(name) {
			why += "; set it on the context"
		}
		return fail(kind.State, "%s", why)
	}
	set, err := o.parse(s, value)
	if err != nil {
		return badValue(ctx, name, value, o.values, kind.Params, err)
	}
	s.mu.Lock()
	set(&c.setup) // no other control call runs, so the state is still connOpen
	s.mu.Unlock()
	return nil
}

func isContextOption(name string) bool {
	named := func(o contextOption) bool { return o.name == name }
	return slices.ContainsFunc(contextOptions, named)
}

func (c *serverContext) setOption(ctx context.Context, name, value string) error {
	if name == optWatch {
		return c.s.setWatch(c.handle, c, value)
	}
	i := slices.IndexFunc(contextOptions, func(o contextOption) bool { return o.name == name })
	if i < 0 {
		known := optionNames(contextOptions, func(o contextOption) string { return o.name })
		return unknownOption(name, "a context", known)
	}
	o := &contextOptions[i]
	c.changeMu.Lock()
	defer c.changeMu.Unlock()
	next := c.copyOptions()
	if err := o.parse(c.s, value, &next); err != nil {
		return badValue(ctx, name, value, o.values, kind.Params, err)
	}
	if err := c.apply(next); err != nil {
		return badValue(ctx, name, value, o.values, kind.Internal, err)
	}
	return nil
}

func optionNames[T any](list []T, name func(T) string) string {
	var names []string
	for _, o := range list {
		names = append(names, name(o))
	}
	return strings.Join(append(names, optWatch), ", ")
}

func unknownOption(name, what, known string) *Error {
	return fail(kind.Params, "%.40q is not an option of %s; there are: %s", name, what, known)
}

// errValue says that a value is none of the option's possible values.
var errValue = fmt.Errorf("no such value")

// badValue makes the error of an option whose value was refused. If err has no kind of its own, the
// error gets the kind fallback.
func badValue(ctx context.Context, name, value, values string, fallback kind.Kind,
	err error) *Error {
	if err == errValue {
		return fail(kind.Params, "%s: %.80q is not a possible value; want %s",
			name, value, values)
	}
	e := classify(ctx, err, fallback)
	if e.Kind != kind.Denied {
		e.Why = name + ": " + e.Why
	}
	return e
}

// badFile returns err with the kind "file", unless err has a kind of its own. err may be nil.
func badFile(err error) error {
	if err == nil {
		return nil
	}
	return classify(context.Background(), err, kind.File)
}

// choice returns the index of value in values.
func choice(value string, values ...string) (int, error) {
	if n := slices.Index(values, value); n >= 0 {
		return n, nil
	}
	return 0, errValue
}

// protocols reads a list of application protocols (RFC 7301). The result nil means that ALPN is not
// used.
func protocols(value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	list := strings.Split(value, ",")
	for _, p := range list {
		if p == "" || len(p) > 255 || strings.TrimSpace(p) != p {
			return nil, errValue
		}
	}
	return list, nil
}

// pins reads a list of hashes of public keys. The result nil allows any key.
func pins(value string) ([][sha256.Size]byte, error) {
	if value == "" {
		return nil, nil
	}
	var list [][sha256.Size]byte
	for text := range strings.SplitSeq(value, ",") {
		digits, ok := strings.CutPrefix(text, "sha256:")
		b, err := hex.DecodeString(digits)
		if !ok || err != nil || len(b) != sha256.Size {
			return nil, errValue
		}
		list = append(list, [sha256.Size]byte(b))
	}
	return list, nil
}

// readClientCA reads the CAs of clients, and checks them.
func (s *Session) readClientCA(op, path string, o *serverOptions) (err error) {
	o.config.CAName = path
	open := s.within(op, policy.KeyCAFolders, s.Policy.CAFolders, path)
	o.config.ClientCAs, o.clientCA, err = readFile(path, maxBundle, open)
	if err == nil {
		_, err = s.Engine.ParseCABundle(path, o.config.ClientCAs)
	}
	return badFile(err)
}

// parseCA reads the trust store of one connection.
func parseCA(s *Session, path string) (func(*connSetup), error) {
	t := newTrust(s)
	t.settled = closedChan
	if path != "" {
		if err := t.read(opSetOption, path); err != nil {
			t.release()
			return nil, badFile(err)
		}
	}
	return func(b *connSetup) {
		old := b.store
		b.store = t
		// The release may free the store's context, and must then wait for the library. So
		// it must not run under the lock.
		s.background.Go(old.release)
	}, nil
}
