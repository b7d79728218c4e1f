// Package waits tests that every wait of a call can be ended. It tries each method in each phase in
// which the method can wait, with a peer that is stuck. It ends the wait in each way that exists
// for the method.
//
// It serves sessions as the worker does, on the libssl of the machine, in the test's own process.
// So the test can count the objects that a session has not freed. TLSD_TEST_LIBSSL names another
// libssl.
//
// One wait cannot be ended and has no row here: reading a certificate, key or CA file on a file
// system that does not answer. The kernel has no way to end it. The session and its worker stay
// until the file system answers, or tlsd is stopped.
package waits
