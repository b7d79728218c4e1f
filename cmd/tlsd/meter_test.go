package main

import (
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"tlsd/internal/vitals"
	"tlsd/session"
)

// The page of memory that worker and supervisor share lists the certificates that servers show. A
// certificate is listed once, as long as at least one context of a server uses it.
func TestTheSlotsHaveTheCertificatesThatServersShow(t *testing.T) {
	t.Parallel()
	page, file, err := vitals.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	defer file.Close()
	m := meter{page, new(certificateSlots)}
	show := func(serial, notAfter, change int) {
		m.Shows(session.Certificate{Serial: big.NewInt(int64(serial)),
			NotAfter: time.Unix(int64(notAfter), 0)}, change)
	}
	shown := func(want ...string) {
		t.Helper()
		var got []string
		for _, c := range page.ShownCertificates() {
			got = append(got, fmt.Sprint(c.Serial, " ", c.NotAfter))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("the page has the certificates %q, want %q", got, want)
		}
	}
	show(1, 100, 1)
	show(1, 100, 1) // a second context uses it
	show(1, 200, 1) // another certificate: another issuer may use the same serial number
	shown("1 100", "1 200")
	show(1, 100, -1)
	shown("1 100", "1 200")
	show(1, 100, -1)
	show(1, 100, -1) // one end more than there were uses: it must change nothing
	shown("1 200")
	show(1, 200, -1)
	shown()

	// If the page has no room for all certificates, it lists those that expire first.
	for i := range 2 * vitals.Certificates {
		show(i, 1000-i, 1)
	}
	show(99, 5000, 1)
	show(99, 5000, -1)
	var want []string
	for i := vitals.Certificates; i < 2*vitals.Certificates; i++ {
		want = append(want, fmt.Sprintf("%x %d", i, 1000-i))
	}
	slices.Sort(want)
	shown(want...)
}
