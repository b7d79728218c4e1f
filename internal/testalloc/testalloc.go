// Package testalloc measures for tests how much memory a call allocates.
package testalloc

import "runtime"

// PerCall returns how many bytes one call of f allocates: the average of n calls, after some calls
// that do not count. It includes the allocations of all goroutines, so a test that uses it is not
// parallel.
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
