package openssl

import (
	"crypto/sha256"
	"fmt"
	"unsafe"
)

// An Info has the results of a handshake, and what the peer has shown. Strings are "" and slices
// nil if the library, the version of TLS or the peer does not provide a value.
type Info struct {
	Version    string // "TLSv1.3"
	Cipher     string // OpenSSL's name of the cipher suite
	ALPN       string // the application protocol (RFC 7301)
	Group      string // the group of the key exchange; needs OpenSSL 3.0
	ServerName string // the server's name that the client has sent (SNI, RFC 6066)
	Resumed    bool   // the handshake has resumed an earlier TLS session

	// Chain has the peer's certificates in DER, its own first, as the peer has sent them.
	Chain [][]byte
	// Issuer is the issuer of the peer's own certificate in the one-line form
	// (X509_NAME_oneline(3)).
	Issuer string
	// KeySHA256 is the hash of the peer's public key (SubjectPublicKeyInfo, RFC 7469 section
	// 2.4). If the peer has shown no certificate, all bytes are 0.
	KeySHA256 [sha256.Size]byte
	// Verified says that the peer has shown a certificate, and that OpenSSL has verified it.
	Verified bool
	// ChannelBinding is the value of the type tls-exporter (RFC 9266), 32 bytes.
	ChannelBinding []byte
}

// Info returns the results of the handshake. It fails with ErrNoHandshake, with net.ErrClosed, or
// with the error of a failed handshake.
func (c *Conn) Info() (Info, error) {
	if err := c.enterReady(); err != nil {
		return Info{}, err
	}
	defer c.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ssl == 0 {
		return Info{}, ErrNoHandshake
	}
	i := Info{Version: c.version}
	ok := false
	q := c.lib.exclusive(func() {
		c.negotiated(&i)
		ok = c.shown(&i) && c.binding(&i)
	})
	if !ok {
		return Info{}, internalError("reading what the handshake has agreed on", q)
	}
	return i, nil
}

// negotiated fills in the results that both sides have agreed on. Call it inside exclusive.
func (c *Conn) negotiated(i *Info) {
	sym := &c.lib.sym
	if cipher := call(sym.sslCurrentCipher, c.ssl); cipher != 0 {
		i.Cipher = goString(call(sym.cipherName, cipher))
	}
	i.ALPN = c.selectedALPN()
	i.Resumed = int32(call(sym.sslSessionReused, c.ssl)) == 1
	i.ServerName = goString(call(sym.sslGetServername, c.ssl, hostnameTypeHostname))
	if sym.sslGroupName != 0 {
		if id := int64(call(sym.sslCtrl, c.ssl, ctrlGetNegotiatedGroup, 0, 0)); id > 0 {
			i.Group = goString(call(sym.sslGroupName, c.ssl, uintptr(id)))
		}
	}
}

// selectedALPN is the protocol that the server has chosen, or "". Call it inside exclusive.
func (c *Conn) selectedALPN() string {
	var out struct { // on the heap, where C may write
		data uintptr
		n    uint32
	}
	call(c.lib.sym.sslGet0ALPN, c.ssl, uintptr(unsafe.Pointer(&out.data)),
		uintptr(unsafe.Pointer(&out.n)))
	return string(goBytes(out.data, int(out.n)))
}

// shown fills in the fields about the peer's certificates. It returns false if OpenSSL cannot
// encode a certificate. Call it inside exclusive.
func (c *Conn) shown(i *Info) bool {
	sym := &c.lib.sym
	leaf := call(sym.sslGetPeerCertificate, c.ssl)
	if leaf == 0 {
		return true
	}
	defer call(sym.x509Free, leaf)
	own, ok := c.lib.encodeCert(leaf)
	if !ok {
		return false
	}
	i.Chain = append(i.Chain, own)
	if i.Issuer, ok = c.lib.oneLine(call(sym.x509Issuer, leaf)); !ok {
		return false
	}
	key, ok := c.lib.encodeKey(call(sym.x509Pubkey, leaf))
	if !ok {
		return false
	}
	i.KeySHA256 = sha256.Sum256(key)
	i.Verified = int64(call(sym.sslGetVerifyResult, c.ssl)) == 0 &&
		int32(call(sym.sslGetVerifyMode, c.ssl))&verifyPeer != 0

	stack := call(sym.sslPeerChain, c.ssl)
	if stack == 0 {
		return true
	}
	first := 0
	if c.client {
		// On a client OpenSSL's chain begins with the peer's own certificate. On a server
		// it does not (SSL_get_peer_cert_chain(3)).
		first = 1
	}
	for n := first; n < int(int32(call(sym.skNum, stack))); n++ {
		cert, ok := c.lib.encodeCert(call(sym.skValue, stack, uintptr(n)))
		if !ok {
			return false
		}
		i.Chain = append(i.Chain, cert)
	}
	return true
}

// encodeCert returns the DER of an X509. Call it inside exclusive.
func (l *Library) encodeCert(cert uintptr) ([]byte, bool) {
	if cert == 0 {
		return nil, false
	}
	out := new(uintptr) // *out is NULL, so i2d_X509 allocates memory (d2i_X509(3))
	n := int32(call(l.sym.i2dX509, cert, uintptr(unsafe.Pointer(out))))
	return l.take(*out, n)
}

// encodeKey returns the DER of an X509_PUBKEY. Call it inside exclusive.
func (l *Library) encodeKey(key uintptr) ([]byte, bool) {
	if key == 0 {
		return nil, false
	}
	out := new(uintptr)
	n := int32(call(l.sym.i2dPubkey, key, uintptr(unsafe.Pointer(out))))
	return l.take(*out, n)
}

// take returns a copy of n bytes that OpenSSL has allocated, and frees OpenSSL's memory. Call it
// inside exclusive.
func (l *Library) take(p uintptr, n int32) ([]byte, bool) {
	if p == 0 {
		return nil, false
	}
	defer call(l.sym.cryptoFree, p, 0, 0)
	return goBytes(p, int(n)), n > 0
}

// The label of the channel binding tls-exporter (RFC 9266 section 2), and the length of its value.
const (
	bindingLabel = "EXPORTER-Channel-Binding"
	bindingBytes = 32
)

// binding fills in the channel binding. It returns false if OpenSSL fails. Call it inside
// exclusive.
func (c *Conn) binding(i *Info) bool {
	out, label := make([]byte, bindingBytes), []byte(bindingLabel)
	ret := int32(call(c.lib.sym.sslExport, c.ssl, uintptr(unsafe.Pointer(&out[0])),
		bindingBytes,
		uintptr(unsafe.Pointer(&label[0])), uintptr(len(label)), 0, 0, 0))
	i.ChannelBinding = out
	return ret == 1
}

// checkPins returns an error if the peer's key is none of the pins. Call it only if the peer has
// shown a certificate.
func (i *Info) checkPins(pins [][sha256.Size]byte) error {
	for _, pin := range pins {
		if pin == i.KeySHA256 {
			return nil
		}
	}
	return fmt.Errorf("the server's key has the hash sha256:%x, which is none of the %d pins",
		i.KeySHA256, len(pins))
}
