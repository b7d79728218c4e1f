//go:build linux && !amd64 && !arm64

package confine

// There is no filter for this architecture.
var (
	filterWords []uint64
	filterPIDs  []int
)
