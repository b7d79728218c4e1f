package testalloc

import "testing"

var kept []byte

// PerCall returns about as many bytes as a call allocates.
func TestWhatACallAllocatesIsSeen(t *testing.T) {
	got := PerCall(100, func() { kept = make([]byte, 10_000) })
	if got < 10_000 || got > 12_000 {
		t.Errorf("PerCall returns %d for a call that allocates 10000 bytes", got)
	}
	if got := PerCall(100, func() { kept[0]++ }); got > 100 {
		t.Errorf("PerCall returns %d for a call that allocates nothing", got)
	}
}
