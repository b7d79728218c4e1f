package vitals

import (
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// A page has a slot for each certificate. The slots overlap neither each other nor the counters.
// HideCertificate empties one slot.
func TestCertificatesHaveASlotEach(t *testing.T) {
	t.Parallel()
	page, file, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	defer file.Close()
	if countersAt+8*NumCounters > certificatesAt ||
		certificatesAt+certificateBytes*Certificates > headerBytes {
		t.Fatal("the slots are not between the counters and the sessions")
	}
	for c := range Counter(NumCounters) {
		page.Count(c, -1)
	}
	longest := strings.Repeat("f", 48)
	var want []Certificate
	for slot := range Certificates {
		serial := new(big.Int).Lsh(big.NewInt(int64(slot)), uint(8*slot))
		want = append(want, Certificate{serial.Text(16), int64(slot) + 1})
		page.ShowCertificate(slot, serial, time.Unix(int64(slot)+1, 0))
	}
	want[3].Serial = longest
	page.ShowCertificate(3, hex(longest), time.Unix(4, 0))
	if got := page.ShownCertificates(); !slices.Equal(got, want) {
		t.Errorf("ShownCertificates returns %v, want %v", got, want)
	}
	if got := page.Read(Counter(NumCounters - 1)); got != 1<<64-1 {
		t.Errorf("the slots have overwritten the last counter: %x", got)
	}
	page.HideCertificate(5)
	if got := page.ShownCertificates(); !slices.Equal(got, slices.Delete(want, 5, 6)) {
		t.Errorf("after HideCertificate(5), ShownCertificates returns %v; want all but "+
			"the certificate of slot 5", got)
	}
}

func hex(digits string) *big.Int {
	n, _ := new(big.Int).SetString(digits, 16)
	return n
}

// ShowCertificate does not write impossible values. If a worker has written them by itself,
// ShownCertificates does not return them.
func TestCertificatesOutOfBoundsAreLeftOut(t *testing.T) {
	t.Parallel()
	page, file, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	defer file.Close()
	page.ShowCertificate(0, hex("1"+strings.Repeat("0", 48)), time.Unix(1, 0))
	page.ShowCertificate(1, big.NewInt(-1), time.Unix(1, 0))
	page.ShowCertificate(2, big.NewInt(1), time.Unix(0, 0))
	page.ShowCertificate(3, big.NewInt(1), time.Unix(lastEnd+1, 0))
	for word := range 4 {
		page.certificate(4, word).Store(1<<64 - 1)
	}
	if got := page.ShownCertificates(); len(got) != 0 {
		t.Errorf("ShownCertificates returns %v, want nothing", got)
	}
}
