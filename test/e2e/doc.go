// Package e2e tests the whole: real scripts in domhost, the real TlsPlugin.so, real daemons with
// the system's libssl, and independent peers (crypto/tls, openssl, curl). It has tests only.
//
// Nothing leaves the machine. Peers listen on loopback. A peer that must be called example.com:443
// lives in network and mount namespaces of its own (namespace_test.go). Each program ends with its
// test at the latest. A test fails if its daemon leaves a process behind.
package e2e
