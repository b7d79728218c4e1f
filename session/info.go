package session

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strconv"
	"strings"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// A handle has facts. Each fact has a name and a text. Times are Unix seconds. Hashes and bytes are
// hexadecimal. Yes is "1" and no is "0". If a fact does not apply, its text is "": for example
// "subject", if the peer has shown no certificate.
//
// OpenSSL verifies certificates. This package only describes them.

// Facts maps the name of each fact to its text.
type Facts map[string]string

// connFacts are the names of a connection's facts, in the order of proto.md.
var connFacts = []string{
	"version", "cipher", "alpn", "group", "resumed", "server-name",
	"peer-address", "local-address",
	"subject", "issuer", "serial", "san", "not-before", "not-after", "sha256", "key-sha256",
	"pem", "chain", "verified", "channel-binding", "unsent",
}

const opInfo = "tls.Info"

// HandleInfo returns one fact about a connection or a context, as a string. Without a name it
// returns all facts, as Facts. A connection has its addresses before its handshake, and the other
// facts only after it.
func (s *Session) HandleInfo(h Handle, name string) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts[h] != nil {
		c, err := s.context(h)
		if err != nil {
			return s.refuse(opInfo, h, err)
		}
		call := s.newCall(opInfo, h, func(context.Context) (any, error) {
			return c.facts().pick(name, contextFacts())
		})
		call.after = []<-chan struct{}{c.controlTail}
		return call.instant()
	}
	run := func(_ context.Context, c *connection) (any, error) {
		f, err := c.facts(name)
		if err != nil {
			return nil, err
		}
		return f.pick(name, connFacts)
	}
	return s.beside(opInfo, h, controlLane, run).instant()
}

// pick returns one fact, or all if there is no name.
func (f Facts) pick(name string, known []string) (any, error) {
	if name == "" {
		return f, nil
	}
	if !slices.Contains(known, name) {
		return nil, fail(kind.Params, "%.40q is not a fact of this handle; there are: %s",
			name, strings.Join(known, ", "))
	}
	return f[name], nil
}

// facts returns the facts of a connection. If name is peer-address or local-address, it returns
// only these two. For every other fact the handshake must be done.
func (c *connection) facts(name string) (Facts, error) {
	f := Facts{"peer-address": c.remote, "local-address": c.local}
	if _, ok := f[name]; ok {
		return f, nil
	}
	t, err := c.usable()
	if err != nil {
		return nil, err
	}
	i, err := t.Info()
	if err != nil {
		return nil, fail(kind.Internal, "%v", err)
	}
	for name, text := range map[string]string{
		"version":         i.Version,
		"cipher":          i.Cipher,
		"alpn":            i.ALPN,
		"group":           i.Group,
		"resumed":         flag(i.Resumed),
		"server-name":     i.ServerName,
		"verified":        flag(i.Verified),
		"channel-binding": hex.EncodeToString(i.ChannelBinding),
		"subject":         t.PeerSubject(),
		"unsent":          strconv.Itoa(c.unsent()),
	} {
		f[name] = text
	}
	f.addCertificates(i)
	return f, nil
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// addCertificates adds the facts about the peer's certificates.
func (f Facts) addCertificates(i openssl.Info) {
	for _, name := range []string{"issuer", "serial", "san", "not-before", "not-after",
		"sha256", "key-sha256", "pem", "chain"} {
		f[name] = ""
	}
	if len(i.Chain) == 0 {
		return
	}
	sum := sha256.Sum256(i.Chain[0])
	f["sha256"] = hex.EncodeToString(sum[:])
	f["key-sha256"] = hex.EncodeToString(i.KeySHA256[:])
	f["pem"] = asPEM(i.Chain[:1])
	f["chain"] = asPEM(i.Chain)
	f["issuer"] = i.Issuer
	leaf, err := x509.ParseCertificate(i.Chain[0])
	// OpenSSL reads some certificates that package x509 refuses. For them the facts below stay
	// "".
	if err != nil {
		return
	}
	f["serial"] = leaf.SerialNumber.Text(16)
	f["san"] = names(leaf)
	f["not-before"] = strconv.FormatInt(leaf.NotBefore.Unix(), 10)
	f["not-after"] = strconv.FormatInt(leaf.NotAfter.Unix(), 10)
}

func asPEM(chain [][]byte) string {
	var b strings.Builder
	for _, der := range chain {
		// a Builder does not fail
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.String()
}

// names lists the subject alternative names, as in "DNS:example.com, IP:192.0.2.1".
func names(c *x509.Certificate) string {
	var list []string
	for _, n := range c.DNSNames {
		list = append(list, "DNS:"+entry(n))
	}
	for _, ip := range c.IPAddresses {
		list = append(list, "IP:"+ip.String())
	}
	for _, m := range c.EmailAddresses {
		list = append(list, "email:"+entry(m))
	}
	for _, u := range c.URIs {
		list = append(list, "URI:"+entry(u.String()))
	}
	return strings.Join(list, ", ")
}

// entry quotes a name that has a comma, a blank, a quotation mark, a backslash, or a character that
// is not printable ASCII. Otherwise one name could look like two names, and a NUL would end the
// text in a C program.
func entry(name string) string {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`,"\`, r) }
	if strings.IndexFunc(name, odd) < 0 {
		return name
	}
	return strconv.QuoteToASCII(name)
}

// unsent is the number of bytes that the caller has sent on the data channel, and that are not sent
// to the peer yet.
func (c *connection) unsent() int {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.pumps == nil {
		return 0
	}
	return c.pumps.ch.queued() + c.pumps.limit.pending()
}

// contextFacts are the names of a context's facts.
func contextFacts() []string {
	names := []string{"address"}
	for _, o := range contextOptions {
		names = append(names, o.name)
	}
	return append(names, optWatch)
}

// facts returns the facts of a context: its addresses and its options.
func (c *serverContext) facts() Facts {
	list, _ := c.listening()
	var addresses []string
	for _, l := range list {
		addresses = append(addresses, l.ln.Addr().String())
	}
	slices.Sort(addresses)
	c.s.mu.Lock()
	o := c.options
	c.s.mu.Unlock()
	f := Facts{
		"address":            strings.Join(addresses, ","),
		"alpn":               strings.Join(o.config.ALPN, ","),
		"client-ca":          o.config.CAName,
		"client-cert":        []string{"none", "request", "require"}[o.config.ClientAuth],
		"min-version":        "1.2",
		"session-resumption": "on",
		"failed-handshakes":  "raise",
		"handshake":          "accept",
		"reload":             "off",
		optWatch:             "0",
	}
	for name, v := range map[string]struct {
		is   bool
		text string
	}{
		"min-version":        {o.tls13 || c.s.Policy.RequiresTLS13(), "1.3"},
		"session-resumption": {o.config.NoResumption, "off"},
		"failed-handshakes":  {o.skip, "skip"},
		"handshake":          {o.later, "later"},
		"reload":             {o.reload, "auto"},
		optWatch:             {c.watched(), "1"},
	} {
		if v.is {
			f[name] = v.text
		}
	}
	return f
}
