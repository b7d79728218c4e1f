package openssl

import (
	"strings"
	"unsafe"
)

// harden makes a server's context choose suites as a careful server does. The server's own order
// counts. ChaCha20 comes first for clients that prefer it, because they have no AES in hardware. In
// TLS 1.2 only suites with authenticated encryption and ephemeral keys remain (RFC 9325 section
// 4.2; CBC allows LUCKY13). The choice is among the suites that OpenSSL and openssl.cnf allow,
// whatever the version of OpenSSL. If it leaves none, all suites of TLS 1.2 stay, because then the
// administrator has set them in openssl.cnf. Call it inside exclusive.
func (l *Library) harden(ctx uintptr) {
	call(l.sym.ctxSetOptions, ctx, opCipherServerPreference|opPrioritizeChaCha)
	const most = 1000 // OpenSSL has about 200
	suites := call(l.sym.ctxGetCiphers, ctx)
	var names []string
	for i := range min(int32(call(l.sym.skNum, suites)), most) {
		suite := call(l.sym.skValue, suites, uintptr(i))
		// the suites of TLS 1.3 have another kx, and a list of their own
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
	// the call keeps the security level and the suites of TLS 1.3
	call(l.sym.ctxSetCipherList, ctx, uintptr(unsafe.Pointer(list)))
}
