package openssl

import (
	"strings"
	"unsafe"
)

// harden sets which cipher suites a server's context chooses. The server's order of suites decides,
// and not the client's. But if a client prefers ChaCha20, ChaCha20 comes first, because such a
// client usually has no AES in hardware.
//
// Of the TLS 1.2 suites that OpenSSL and openssl.cnf allow, harden keeps those with authenticated
// encryption and ephemeral keys (RFC 9325 section 4.2; CBC allows LUCKY13). If there is no such
// suite, it keeps all suites: the administrator has chosen them in openssl.cnf. Call harden inside
// exclusive.
func (l *Library) harden(ctx uintptr) {
	call(l.sym.ctxSetOptions, ctx, opCipherServerPreference|opPrioritizeChaCha)
	const most = 1000 // OpenSSL has about 200
	suites := call(l.sym.ctxGetCiphers, ctx)
	var names []string
	for i := range min(int32(call(l.sym.skNum, suites)), most) {
		suite := call(l.sym.skValue, suites, uintptr(i))
		// kx is the suite's key exchange. For a suite of TLS 1.3 it is neither ECDHE nor
		// DHE, so the list `names` gets no suite of TLS 1.3.
		kx := int32(call(l.sym.cipherKXNid, suite))
		if int32(call(l.sym.cipherIsAEAD, suite)) == 1 &&
			(kx == nidKXECDHE || kx == nidKXDHE) {
			names = append(names, goString(call(l.sym.cipherName, suite)))
		}
	}
	if len(names) == 0 {
		return
	}
	list := cString(strings.Join(names, ":"))
	// The suites of TLS 1.3 are in a list of their own, which this call does not change. The
	// security level does not change either.
	call(l.sym.ctxSetCipherList, ctx, uintptr(unsafe.Pointer(list)))
}
