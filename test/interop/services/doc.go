// Package services tests our clients with servers that people run: PostgreSQL, postfix, dovecot,
// redis, mosquitto and nginx. It tests both of our roles with Java's TLS.
//
// Each server is a process of its test, with its own configuration, on loopback. It ends with the
// test. It runs as nobody, unless it must be root. Without its server a test is skipped. make
// services installs the servers, and then a missing server is a failure. The tests use rpc/client.
package services
