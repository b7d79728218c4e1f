package supervisor

import (
	"cmp"
	"slices"

	"tlsd/internal/admin"
	"tlsd/internal/vitals"
)

// This file has the metric that shows when the certificates of servers expire. The metric's label
// is the certificate's serial number. Scripts choose the certificates, so a script could cause any
// number of label values. So the number of certificates is limited, for each user and for all users
// together. The certificates that expire first are shown.
const (
	expiryOfUser = 64
	expiryOfAll  = 512
)

// expiry returns the expiry times of the certificates that servers show now, within the limits. The
// caller holds s.mu.
func (s *Supervisor) expiry() admin.Family {
	users := map[account][]vitals.Certificate{}
	for w := range s.workers {
		if as, ok := w.serves(); ok {
			users[as] = append(users[as], w.page.ShownCertificates()...)
		}
	}
	var all []vitals.Certificate
	for _, list := range users {
		all = append(all, firstToEnd(list, expiryOfUser)...)
	}
	f := admin.Family{Name: "tlsd_certificate_expiry_time_seconds",
		Help: "When a server's certificate expires, in Unix time, by serial number.",
		Type: "gauge"}
	for _, c := range firstToEnd(all, expiryOfAll) {
		f.Samples = append(f.Samples, admin.Sample{
			Labels: map[string]string{"serial": c.Serial}, Value: float64(c.NotAfter)})
	}
	return f
}

// serves returns the account of the worker's oldest session. ok is false if the worker has no
// session. The caller holds Supervisor.mu.
func (w *worker) serves() (as account, ok bool) {
	var first uint64
	for number, sess := range w.sessions {
		if !ok || number < first {
			as, first, ok = sess.peer.account(), number, true
		}
	}
	return as, ok
}

// firstToEnd sorts list, and returns the certificates that expire first. The parameter limit bounds
// their number. If several have the same serial, only the first to expire is kept.
func firstToEnd(list []vitals.Certificate, limit int) []vitals.Certificate {
	slices.SortFunc(list, func(a, b vitals.Certificate) int {
		return cmp.Or(cmp.Compare(a.NotAfter, b.NotAfter), cmp.Compare(a.Serial, b.Serial))
	})
	seen := map[string]bool{}
	list = slices.DeleteFunc(list, func(c vitals.Certificate) bool {
		twice := seen[c.Serial]
		seen[c.Serial] = true
		return twice
	})
	return list[:min(len(list), limit)]
}
