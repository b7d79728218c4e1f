// Package services holds our clients against servers that people run: PostgreSQL, postfix, dovecot,
// redis, mosquitto and nginx; and both of our roles against Java's TLS.
//
// Each server is a process of its test, with its own configuration, on loopback, and ends with the
// test. It runs as nobody where it does not have to be root. A test without its server is skipped;
// make services installs the servers, and fails a test that is skipped for the lack of one. What is
// asked of tlsd goes through rpc/client.
package services
