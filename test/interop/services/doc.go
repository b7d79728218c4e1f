// Package services tests our clients with servers that people run: PostgreSQL, postfix, dovecot,
// redis, mosquitto and nginx. It tests both of our roles with Java's TLS.
//
// Each server is a process of its test, with its own configuration, on loopback. The server ends
// with the test. It runs as the user nobody, unless it must run as root. If the server is not
// installed, the test is skipped. Under make services, which installs the servers, the test fails
// instead. The tests use rpc/client.
package services
