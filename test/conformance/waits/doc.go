// Package waits tests that every wait of a call can be ended. It tries each method in each phase in
// which the method can wait, with a peer that is stuck. It ends the wait in each way that exists
// for the method.
//
// The tests serve sessions as the worker does, with the libssl of the machine, in the test's own
// process. So a test can count the objects that a session has not freed. TLSD_TEST_LIBSSL names
// another libssl.
//
// One wait cannot be ended, and has no row in the table waits: reading a certificate, key or CA
// file on a file system that does not answer. The kernel has no way to end it. The session and its
// worker stay until the file system answers, or tlsd is stopped.
package waits
