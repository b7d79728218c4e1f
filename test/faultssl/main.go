// Faultssl builds a libssl that goes wrong on purpose, for tests and for trying things out by hand:
//
//	go run ./test/faultssl bin/faultssl.so
//
// The library forwards every function that package openssl calls to the machine's libssl and
// libcrypto, which it depends on. A file beside it orders crashes, hangs, wrong results and more at chosen
// calls; README.md has the form of orders. The tests of this package give them to the
// workers of real daemons, for every function and every fault.
//
// # Promises
//
//   - Without orders the library behaves as the one behind it, to the last argument, result and errno.
//   - Only package openssl's own calls are touched, not those between libssl and libcrypto: the
//     functions here have a version of their own, which no reference in the two asks for (ld.so(8), symbol versions).
//   - A function that the package's table has is wrapped, or the build, or a test, fails.
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
