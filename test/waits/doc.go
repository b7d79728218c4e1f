// Package waits tests that every wait can be ended: each method, in each phase in
// which it can wait, with a peer that is stuck, by each of the ways that there are.
//
// It serves sessions as the worker does, on the libssl of the machine, in the test's own process, so that it can be
// seen that nothing is left. TLSD_TEST_LIBSSL names another libssl.
//
// What cannot be ended, and is no row here: reading a certificate, key or CA file that lies on a file system which does
// not answer. There the kernel gives no way; the session and its worker last until it answers, or tlsd is stopped.
package waits
