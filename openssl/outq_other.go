//go:build !linux

package openssl

// unacknowledged returns 0: this system does not report the number, so Close does not wait for it.
func unacknowledged(uintptr) int { return 0 }
