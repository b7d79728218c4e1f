// Package testalloc measures for tests how much memory a call allocates.
package testalloc

import (
	"runtime"
	"runtime/debug"
)

// mostGarbage is the memory at which garbage is collected during a measurement.
const mostGarbage = 1 << 30

// PerCall returns how many bytes one call of f allocates, as the average of n calls. First it calls
// f a few times without measuring. The result includes the allocations of all goroutines. So a test
// that calls PerCall must not be parallel.
//
// Meanwhile no garbage is collected, unless f allocates very much. A collection empties pools
// (sync.Pool), and how many collections there are depends on what the whole program allocates.
func PerCall(n int, f func()) int {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(mostGarbage))
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
