//go:build !race

package openssl_test

const raceEnabled = false
