// Package scan lets foreign scanners examine our server: sslscan and testssl.sh. make scan runs
// them against the machine's libssl. make libssl-matrix runs them against each version of OpenSSL,
// with the sslscan of that version's Debian release and the machine's testssl.sh.
//
// A table has the expected findings with their reasons. The test fails if a finding is not in the
// table, or if a finding in the table is missing. The tests have the build tag scan, because they
// take minutes.
package scan
