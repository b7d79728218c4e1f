// Package trust tests where trust comes from. The daemon finds the store of the system that it runs
// on, in each system's layout. It follows SSL_CERT_FILE and SSL_CERT_DIR. If there is no store, it
// says what it has tried. It reads CA bundles as proto.md says. The package also tests that the
// daemon reports the library that is loaded.
//
// The daemon is a real one with a real libssl. To show the files of another system to the daemon,
// a test starts it in a mount namespace of its own. These tests need root; without it they are
// skipped. The package certs beside it tests how certificates are judged.
package trust
