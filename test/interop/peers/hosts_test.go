package peers

import (
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Foreign clients find virtual hosts by their names.

// virtualHosts are names that clients ask for. The value is true if the server has a certificate
// with the name. For a name that is in no certificate, the server shows its default certificate,
// and the client must refuse the server.
var virtualHosts = map[string]bool{
	"default.test": true, "one.test": true, "ONE.test": true,
	"www.two.test": true, "two.test": true, "a.b.two.test": true,
	"other.test": false, // gets the default certificate, which lacks this name
}

// Each foreign program gets the certificate of the host that it asks for. It verifies the
// certificate itself.
func TestForeignClientsFindVirtualHosts(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	d := testd.Start(t)
	named := func(names ...string) *testcert.Cert {
		return ca.Issue(t, testcert.Leaf{CN: names[0], DNS: names})
	}
	own := named("default.test", "two.test", "a.b.two.test")
	one, two := named("one.test"), named("*.two.test")
	for _, v := range visitors {
		for host, found := range virtualHosts {
			t.Run(v.name+"/"+host, func(t *testing.T) {
				t.Parallel()
				need(t, v.tool)
				m := newMine(t, d)
				ctx, port := m.context(own)
				for name, c := range map[string]*testcert.Cert{"one.test": one,
					"*.two.test": two} {
					testkit.Must(t, m.SetCertificate(m.ctx, ctx, name,
						c.CertFile, c.KeyFile))
				}
				come := make(chan error, 1)
				go func() {
					h, err := m.Accept(m.ctx, ctx, "", 0)
					if err == nil {
						asked := m.fact(h, "server-name")
						if !strings.EqualFold(asked, host) {
							t.Errorf("the server was asked for %q, "+
								"want %q", asked, host)
						}
						err = m.answer(h)
					}
					come <- err
				}()
				printed, left := v.visit(port, host, ca.File, nil)
				err := <-come
				got := strings.HasSuffix(printed, ourPage) && left == nil
				if got != found {
					t.Errorf("%s has got the page: %v, want %v; it printed "+
						"%q, and ended with %v", v.name,
						got, found, printed, left)
				}
				if found {
					testkit.Must(t, err)
				} else if err == nil {
					// The client must end the connection or the handshake.
					t.Error("the client has accepted a certificate that " +
						"lacks the name of the host")
				}
			})
		}
	}
}
