package testalloc

import "testing"

var kept []byte

func TestWhatACallAllocatesIsSeen(t *testing.T) {
	got := PerCall(100, func() { kept = make([]byte, 10_000) })
	if got < 10_000 || got > 12_000 {
		t.Errorf("a call allocates %d bytes, want 10000", got)
	}
	if got := PerCall(100, func() { kept[0]++ }); got > 100 {
		t.Errorf("a call allocates %d bytes, want none", got)
	}
}
