// Faultssl builds a libssl that goes wrong on purpose, for tests and for trials by hand:
//
//	go run ./test/faults bin/faultssl.so
//
// The library forwards every function that package openssl calls to the machine's libssl and
// libcrypto. A file beside the library orders crashes, hangs, wrong results and more at chosen
// calls. README.md has the form of orders. The tests of this package give such orders to the
// workers of real daemons, for every function and every fault.
//
// # Promises
//
//   - Without orders, the library passes on each call unchanged: its arguments, its result and
//     errno.
//   - Only calls of package openssl are affected, not those between libssl and libcrypto. The
//     functions here have a version of their own, and the two libraries do not ask for this version
//     (ld.so(8), symbol versions).
//   - Each function in the table of symbols of package openssl is wrapped. Otherwise the build or a
//     test fails.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 || os.Args[1] == "" || os.Args[1][0] == '-' {
		fmt.Fprintln(os.Stderr, "usage: faultssl FILE: builds the library")
		os.Exit(2)
	}
	if _, err := build(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "faultssl:", err)
		os.Exit(1)
	}
}
