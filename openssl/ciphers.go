package openssl

import (
	"strings"
	"unsafe"
)

// harden makes a server's context choose as a careful server does: by its own order, though ChaCha20 for clients that
// put it first because they have no AES in hardware; and in TLS 1.2 only suites with authenticated encryption and
// ephemeral keys (RFC 9325 section 4.2; CBC is what LUCKY13 is about). They are taken from those that OpenSSL and openssl.cnf allow,
// whatever version that is. If none of these is such a suite, all stay: then somebody wants it so. To be called in exclusive.
func (l *Library) harden(ctx uintptr) {
	call(l.sym.ctxSetOptions, ctx, opCipherServerPreference|opPrioritizeChaCha)
	const most = 1000 // OpenSSL has about 200
	suites := call(l.sym.ctxGetCiphers, ctx)
	var names []string
	for i := range min(int32(call(l.sym.skNum, suites)), most) {
		suite := call(l.sym.skValue, suites, uintptr(i))
		kx := int32(call(l.sym.cipherKXNid, suite)) // another one for the suites of TLS 1.3, which have a list of their own
		if int32(call(l.sym.cipherIsAEAD, suite)) == 1 && (kx == nidKXECDHE || kx == nidKXDHE) {
			names = append(names, goString(call(l.sym.cipherName, suite)))
		}
	}
	if len(names) == 0 {
		return
	}
	list := cString(strings.Join(names, ":"))
	call(l.sym.ctxSetCipherList, ctx, uintptr(unsafe.Pointer(list))) // it keeps the level of security, and the suites of TLS 1.3
}
