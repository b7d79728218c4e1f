// Package testalloc measures for tests how much memory a call allocates.
package testalloc

import "runtime"

// PerCall returns how many bytes one call of f allocates, as the average of n calls. First it calls
// f a few times without measuring. The result includes the allocations of all goroutines. So a test
// that calls PerCall must not be parallel.
func PerCall(n int, f func()) int {
	for range 10 {
		f()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		f()
	}
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc-before.TotalAlloc) / n
}
