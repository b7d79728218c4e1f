// Package certs tests how certificates are judged. It has a matrix of good, bad and malformed
// chains, each with the verdict and the text that package openssl must give. Two other judges look
// at the same chains: the command `openssl verify` of the same version, and Go's crypto/x509. The
// table of disagreements says where they differ from package openssl, and why. The test fails if a
// difference is not in the table, and if an entry of the table is no difference any more.
//
//	go test -v ./test/trust/certs
//
// prints the figures. TLSD_TEST_LIBSSL names the libssl to test, as for package openssl. The
// command is looked for beside that library, then on the PATH, and must report the same version.
// Without such a command, the comparison with it is reported as skipped.
package certs
