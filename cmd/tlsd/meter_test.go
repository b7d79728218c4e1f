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

func TestTheSlotsHaveTheCertificatesThatServersShow(t *testing.T) {
	t.Parallel()
	page, file, err := vitals.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	defer file.Close()
	m := meter{page, new(certificateSlots)}
	show := func(serial, end, uses int) {
		m.Shows(session.Certificate{Serial: big.NewInt(int64(serial)),
			NotAfter: time.Unix(int64(end), 0)}, uses)
	}
	shown := func(want ...string) {
		t.Helper()
		var got []string
		for _, c := range page.ShownCertificates() {
			got = append(got, fmt.Sprint(c.Serial, " ", c.NotAfter))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("shown are %q, want %q", got, want)
		}
	}
	show(1, 100, 1)
	show(1, 100, 1) // by another context
	show(1, 200, 1) // of another issuer
	shown("1 100", "1 200")
	show(1, 100, -1)
	shown("1 100", "1 200")
	show(1, 100, -1)
	show(1, 100, -1) // one too many
	shown("1 200")
	show(1, 200, -1)
	shown()

	// If there are more certificates than slots, the certificates that expire first stay.
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
