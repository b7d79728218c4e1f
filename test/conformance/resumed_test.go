package conformance

import (
	"crypto/tls"
	"io"
	"testing"

	"tlsd/internal/testkit"
	"tlsd/session"
)

// The fact resumed, and the option of clients that turns resumption off, against crypto/tls.
func TestClientsResumeTLSSessionsUnlessTheyAreToldNotTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := w.cert.Config()
			cfg.MaxVersion = version
			port := testkit.ServeTLS(t, cfg, func(c *tls.Conn) { io.Copy(c, c) })
			atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
				ctx, s := testkit.Bounded(t), e.open(t, w.ca.File)
				for _, c := range [][2]string{{"on", "0"}, {"on", "1"}, {"off", "0"}, {"on", "1"}} {
					h, err := s.NewClient(ctx, "localhost", port)
					testkit.Must(t, err)
					testkit.Must(t, s.SetOption(ctx, h, "session-resumption",
						c[0]))
					testkit.Must(t, s.Handshake(ctx, h))
					_, err = s.Write(ctx, h, []byte("x"))
					testkit.Must(t, err)
					if _, err := s.Read(ctx, h, 1); err != nil { // a ticket comes before it
						t.Fatal(err)
					}
					if got, err := s.HandleInfo(ctx, h, "resumed"); err != nil || got != c[1] {
						t.Errorf("with %s: resumed %q, %v; want %s", c[0], got, err, c[1])
					}
					if got, err := s.HandleInfo(ctx, h, "verified"); err != nil || got != "1" {
						t.Errorf("verified %q, %v", got, err)
					}
					testkit.Must(t, s.CloseConn(ctx, h))
				}
			})
		})
	}
}
