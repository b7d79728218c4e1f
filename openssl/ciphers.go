package openssl

import (
	"strings"
	"unsafe"
)

// harden sets which cipher suites a server's context chooses. The order of the server decides, and
// not that of the client. But ChaCha20 comes first for clients that prefer it, because they have no
// AES in hardware.
//
// Of the TLS 1.2 suites that OpenSSL and openssl.cnf allow, harden keeps those with authenticated
// encryption and ephemeral keys (RFC 9325 section 4.2; CBC allows LUCKY13). If there is none, it
// keeps all of them, because then the administrator has chosen them in openssl.cnf. Call harden
// inside exclusive.
func (l *Library) harden(ctx uintptr) {
	call(l.sym.ctxSetOptions, ctx, opCipherServerPreference|opPrioritizeChaCha)
	const most = 1000 // OpenSSL has about 200
	suites := call(l.sym.ctxGetCiphers, ctx)
	var names []string
	for i := range min(int32(call(l.sym.skNum, suites)), most) {
		suite := call(l.sym.skValue, suites, uintptr(i))
		// kx is the key exchange. The suites of TLS 1.3 have another one here, and their
		// own list.
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
	// This call does not change the security level, and not the suites of TLS 1.3.
	call(l.sym.ctxSetCipherList, ctx, uintptr(unsafe.Pointer(list)))
}
