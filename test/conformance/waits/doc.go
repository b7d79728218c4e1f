// Package waits tests that every wait can be ended: each method, in each phase in which it can
// wait, with a peer that is stuck, by each way that exists.
//
// It serves sessions as the worker does, on the libssl of the machine, in the test's own process.
// So it can see that nothing is left. TLSD_TEST_LIBSSL names another libssl.
//
// One wait cannot be ended and has no row here: reading a certificate, key or CA file on a file
// system that does not answer. The kernel has no way to end it. The session and its worker stay
// until the file system answers, or tlsd is stopped.
package waits
