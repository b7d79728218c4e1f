// Package trust tests where trust comes from. On each supported system, the daemon finds the
// system's trust store, wherever the system keeps it. The daemon follows SSL_CERT_FILE and
// SSL_CERT_DIR. If there is no store, the error says what the daemon has tried. The daemon reads CA
// bundles as proto.md says. The package also tests that the daemon reports the library that is
// loaded.
//
// The daemon is a real one with a real libssl. To show the files of another system to the daemon, a
// test starts it in a mount namespace of its own. Such a test needs root, and is skipped for other
// users. The package certs beside it tests how certificates are judged.
package trust
