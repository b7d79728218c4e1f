package openssl

// Secrets of connections, for programs that decrypt what was captured of them. Whoever has them can
// read everything, so there are none unless Library.KeyLog is set.

// logSecret is the callback of all contexts (SSL_CTX_set_keylog_callback(3)).
func (l *Library) logSecret(_, line uintptr) (result uintptr) {
	defer func() { _ = recover() }() // a panic must not unwind C's frames
	l.KeyLog(goString(line))
	return 0
}

// tellSecrets makes the connections of a context tell their secrets, if that is wanted. To be
// called inside exclusive.
func (l *Library) tellSecrets(ctx uintptr) {
	if l.KeyLog != nil {
		call(l.sym.ctxSetKeylog, ctx, l.keylogCB)
	}
}
