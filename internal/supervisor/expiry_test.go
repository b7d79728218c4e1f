package supervisor

import (
	"math/big"
	"testing"
	"time"

	"tlsd/internal/testkit"
	"tlsd/internal/vitals"
)

// The metric tlsd_certificate_expiry_time_seconds shows at most expiryOfUser certificates of one
// user, so that they do not displace another user's certificates. Of all users together, it shows
// at most expiryOfAll.
func TestExpiryIsBoundedForEachUser(t *testing.T) {
	t.Parallel()
	s, _ := auditor()
	number := uint64(0)
	// add adds a worker of the user. The worker shows certificates with consecutive serials.
	add := func(uid uint32, firstSerial, expires int64) {
		number++
		page, file, err := vitals.New(1)
		testkit.Must(t, err)
		t.Cleanup(func() { page.Close(); file.Close() })
		for slot := range vitals.Certificates {
			page.ShowCertificate(slot, big.NewInt(firstSerial+int64(slot)),
				time.Unix(expires, 0))
		}
		peer := Peer{UID: uid}
		s.workers[&worker{page: page,
			sessions: map[uint64]*session{number: {peer: peer}}}] = struct{}{}
	}
	serials := func() map[string]float64 {
		found := map[string]float64{}
		for _, f := range s.Metrics() {
			if f.Name == "tlsd_certificate_expiry_time_seconds" {
				for _, sample := range f.Samples {
					found[sample.Labels["serial"]] = sample.Value
				}
			}
		}
		return found
	}
	for i := range int64(100) {
		add(1000, 0x10000+100*i, 5)
	}
	if n := len(serials()); n != expiryOfUser {
		t.Errorf("the metric shows %d serials of one user, want %d", n, expiryOfUser)
	}
	add(1001, 0xa00, 7)
	if got := serials(); got["a00"] != 7 || len(got) != expiryOfUser+vitals.Certificates {
		t.Errorf("another user's certificate expires at %v, want 7; %d serials are shown, "+
			"want %d", got["a00"], len(got), expiryOfUser+vitals.Certificates)
	}
	add(1001, 0xa00, 6) // the same serial, by another worker
	if got := serials(); got["a00"] != 6 {
		t.Errorf("certificates with the same serial expire at 6 and 7; the metric shows "+
			"%v, want 6", got["a00"])
	}
	for uid := range uint32(40) {
		add(2000+uid, int64(0x20000+100*uid), int64(1000+uid))
	}
	if got := serials(); len(got) != expiryOfAll {
		t.Errorf("the metric shows %d serials of all users, want %d", len(got), expiryOfAll)
	}
}
