// Package trust tests where trust comes from: that the daemon finds the store of the system it runs on, as systems
// lay it out, follows SSL_CERT_FILE and SSL_CERT_DIR, says what it has tried when there is nothing, and takes of a
// CA bundle what proto.md says. It also tests that what is reported of the library is what has been loaded.
//
// The daemon is a real one with a real libssl. Other systems are made by mounts in a namespace of the daemon's own, which
// needs root; elsewhere these tests are skipped.
package trust
