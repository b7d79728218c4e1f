// Package trust tests where trust comes from. The daemon finds the store of the system that it runs
// on, in each system's layout. It follows SSL_CERT_FILE and SSL_CERT_DIR. If there is no store, it
// says what it has tried. It reads CA bundles as proto.md says. The package also tests that the
// daemon reports the library that is loaded.
//
// The daemon is a real one with a real libssl. Mounts in a namespace of the daemon's own stand for
// other systems. That needs root; elsewhere these tests are skipped. The package certs beside it
// tests how certificates are judged.
package trust
