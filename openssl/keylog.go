package openssl

// This file gives the secrets of connections to Library.KeyLog. With the secrets a program can
// decrypt captured packets. So OpenSSL is asked for them only if Library.KeyLog is set.

// logSecret is the callback of all contexts (SSL_CTX_set_keylog_callback(3)).
func (l *Library) logSecret(_, line uintptr) (result uintptr) {
	defer func() { _ = recover() }() // a panic must not unwind C's frames
	l.KeyLog(goString(line))
	return 0
}

// tellSecrets makes OpenSSL report the secrets of a context's connections, if KeyLog is set. Call
// it inside exclusive.
func (l *Library) tellSecrets(ctx uintptr) {
	if l.KeyLog != nil {
		call(l.sym.ctxSetKeylog, ctx, l.keylogCB)
	}
}
