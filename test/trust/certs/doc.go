// Package certs tests how certificates are judged: a matrix of good, bad and malformed chains, each with the
// verdict and the text that the openssl package has to give, compared with two other judges, the
// command `openssl verify` of the same version and Go's crypto/x509. Where these differ from ours, the
// table of disagreements says how and why; a difference that is not in it, or no longer exists, is a failure.
//
//	go test -v ./test/trust/certs
//
// tells the figures. TLSD_TEST_LIBSSL names the libssl to test, as for the package openssl. The command is
// looked for beside that library, then on the PATH, and must report the same version; if
// there is none, the comparison with it is skipped and said to be.
package certs
