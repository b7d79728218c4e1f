// Package e2e tests all parts together: scripts in domhost, TlsPlugin.so, daemons with the system's
// libssl, and independent peers (crypto/tls, openssl, curl). It has tests only.
//
// No byte leaves the machine: peers listen on loopback. If a peer must be called example.com:443,
// the test runs in network and mount namespaces of its own (namespace_test.go). Each program ends
// before its test ends. A test fails if its daemon leaves a process behind.
package e2e
