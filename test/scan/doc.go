// Package scan lets scanners that were not written here look at our server: sslscan and testssl.sh. make scan runs
// them against the machine's libssl; make libssl-matrix runs them against each version,
// sslscan that of the release, testssl.sh the machine's.
//
// What a scanner finds stands, with the reason, in a table: a finding that is not there fails the test, and so does one that
// is there and was not found. The tests have the build tag scan, because they take minutes.
package scan
