package testalloc

import "testing"

var kept []byte

func TestWhatACallAllocatesIsSeen(t *testing.T) {
	if got := PerCall(100, func() { kept = make([]byte, 10_000) }); got < 10_000 ||
		got > 12_000 {
		t.Errorf("%d bytes, where a call makes 10000", got)
	}
	if got := PerCall(100, func() { kept[0]++ }); got > 100 {
		t.Errorf("%d bytes, where a call makes none", got)
	}
}
