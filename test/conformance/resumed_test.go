package conformance

import (
	"crypto/tls"
	"io"
	"testing"

	"tlsd/internal/testkit"
	"tlsd/session"
)

// Our client resumes its TLS session with a server of crypto/tls, unless its option
// session-resumption is off. The fact "resumed" says whether it did.
func TestClientsResumeTLSSessionsUnlessTheyAreToldNotTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			cfg := w.cert.Config()
			cfg.MaxVersion = version
			port := testkit.ServeTLS(t, cfg, func(c *tls.Conn) { io.Copy(c, c) })
			atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
				ctx, s := testkit.Bounded(t), e.open(t, w.ca.File)
				for _, c := range [][2]string{{"on", "0"}, {"on", "1"},
					{"off", "0"}, {"on", "1"}} {
					h, err := s.NewClient(ctx, "localhost", port)
					testkit.Must(t, err)
					testkit.Must(t, s.SetOption(ctx, h, "session-resumption",
						c[0]))
					testkit.Must(t, s.Handshake(ctx, h))
					_, err = s.Write(ctx, h, []byte("x"))
					testkit.Must(t, err)
					// The server's ticket comes before the byte. The next
					// client uses this ticket.
					_, err = s.Read(ctx, h, 1)
					testkit.Must(t, err)
					got, err := s.HandleInfo(ctx, h, "resumed")
					if err != nil || got != c[1] {
						t.Errorf("session-resumption=%s: the fact "+
							"resumed is %q, %v; want %s", c[0],
							got, err, c[1])
					}
					got, err = s.HandleInfo(ctx, h, "verified")
					if err != nil || got != "1" {
						t.Errorf("the fact verified is %q, %v; want 1",
							got, err)
					}
					testkit.Must(t, s.CloseConn(ctx, h))
				}
			})
		})
	}
}
