package openssl

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"unsafe"
)

// OpenSSL alone verifies certificates. After a failed verification OpenSSL has only the number of
// the error. During the verification it passes more to a callback: the depth and the certificate.
// This file stores the depth and the certificate's subject.

// A verdict is the first failure of a verification. The callback writes it during SSL_do_handshake,
// on the goroutine that has called SSL_do_handshake. The same goroutine reads it afterwards.
type verdict struct {
	failed  bool
	code    int
	depth   int
	subject string
}

// recordVerify is the SSL_verify_cb of all connections (SSL_set_verify(3)). It returns preverifyOK,
// so OpenSSL's decision stands. A Library has only one such callback, because purego cannot free a
// callback. So recordVerify finds the verdict by the address of the SSL.
func (l *Library) recordVerify(preverifyOK, storeCtx uintptr) (result uintptr) {
	result = preverifyOK
	// A panic must not unwind C's frames, so it ends here. After a panic the verification fails
	// as it would without the panic. Only the details are missing from its error.
	defer func() { _ = recover() }()
	if int32(preverifyOK) == 1 {
		return
	}
	ssl := call(l.sym.storeCtxExData, storeCtx, l.exIndex)
	v, ok := l.verdicts.Load(ssl)
	if !ok {
		return
	}
	if v := v.(*verdict); !v.failed {
		v.failed = true
		v.code = int(int32(call(l.sym.storeCtxError, storeCtx)))
		v.depth = int(int32(call(l.sym.storeCtxDepth, storeCtx)))
		v.subject, _ = l.subject(call(l.sym.storeCtxCert, storeCtx))
	}
	return
}

// subject is the whole subject of an X509 in the one-line form. OpenSSL writes bytes that are not
// printable ASCII as \xNN. The result ok is false if x509 is 0, or if OpenSSL fails. Call subject
// inside exclusive.
func (l *Library) subject(x509 uintptr) (text string, ok bool) {
	if x509 == 0 {
		return "", false
	}
	return l.oneLine(call(l.sym.x509Subject, x509))
}

// oneLine is an X509_NAME in the one-line form. Call it inside exclusive.
func (l *Library) oneLine(name uintptr) (text string, ok bool) {
	if name == 0 {
		return "", false
	}
	s := call(l.sym.x509NameOneline, name, 0, 0) // without a buffer OpenSSL allocates one
	if s == 0 {
		return "", false
	}
	defer call(l.sym.cryptoFree, s, 0, 0)
	return goString(s), true
}

// verifyError makes the error of a failed verification.
func (l *Library) verifyError(code, depth int, subject, store, host string) *VerifyError {
	e := &VerifyError{Code: code, Depth: depth, Subject: subject, Store: store}
	l.exclusive(func() { e.Reason = goString(call(l.sym.x509VerifyString, uintptr(code))) })
	if code == verifyHostMismatch || code == verifyIPMismatch {
		e.Host = host
	}
	return e
}

// A peerName is the server that a client expects. One of the two fields is set.
type peerName struct {
	dns string // without the final dot of an absolute name (RFC 6066 section 3)
	ip  string // without zone
}

func (n peerName) String() string { return n.dns + n.ip }

func parsePeerName(host string) (peerName, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return peerName{ip: addr.WithZone("").Unmap().String()}, nil
	}
	name := strings.TrimSuffix(host, ".")
	if name == "" {
		return peerName{}, fmt.Errorf("%q is not a host name: it is empty", host)
	}
	if name[0] == '.' { // for .a.com SSL_set1_host(3) would accept x.a.com, too
		return peerName{}, fmt.Errorf("%q is not a host name: it begins with a dot", host)
	}
	// SNI must have no final dot (RFC 6066 section 3). Peers end the handshake if it has one.
	if name[len(name)-1] == '.' {
		return peerName{}, fmt.Errorf("%q is not a host name: it ends with two dots", host)
	}
	if len(name) > 253 {
		return peerName{}, fmt.Errorf("%.20q… is not a host name: it has %d bytes, 253 "+
			"is the most", name, len(name))
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f {
			return peerName{}, fmt.Errorf("%q is not a host name: it must be ASCII "+
				"without blanks (write the xn-- form of an international name)",
				name)
		}
	}
	return peerName{dns: name}, nil
}

// expect sets the name or the address that the server's certificate must have. It also puts a name
// into SNI. It returns false if OpenSSL refuses the name. Call it inside exclusive.
func (l *Library) expect(ssl uintptr, name peerName) bool {
	if name.ip != "" {
		ip := cString(name.ip)
		defer runtime.KeepAlive(ip)
		return int32(call(l.sym.paramSet1IPAsc, call(l.sym.sslGet0Param, ssl),
			uintptr(unsafe.Pointer(ip)))) == 1
	}
	dns := cString(name.dns)
	defer runtime.KeepAlive(dns)
	// The common name must not count as a service's name (RFC 9525 section 2).
	call(l.sym.sslSetHostflags, ssl, noPartialWildcards|neverCheckSubject)
	return int32(call(l.sym.sslSet1Host, ssl, uintptr(unsafe.Pointer(dns)))) == 1 &&
		int64(call(l.sym.sslCtrl, ssl, ctrlSetHostname, hostnameTypeHostname,
			uintptr(unsafe.Pointer(dns)))) == 1
}
