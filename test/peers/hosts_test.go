package peers

import (
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
)

// Programs get the certificate of the host that they ask for, and verify it themselves.
func TestForeignClientsFindVirtualHosts(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	d := testd.Start(t)
	named := func(names ...string) *testcert.Cert { return ca.Issue(t, testcert.Leaf{CN: names[0], DNS: names}) }
	// The default has the names for which there is no other, so that no other certificate will do.
	own, one, two := named("default.test", "two.test", "a.b.two.test"), named("one.test"), named("*.two.test")
	for _, v := range visitors {
		for host, found := range map[string]bool{
			"default.test": true, "one.test": true, "ONE.test": true, "www.two.test": true, "two.test": true, "a.b.two.test": true,
			"other.test": false, // it gets the default, too, which has another name
		} {
			t.Run(v.name+"/"+host, func(t *testing.T) {
				t.Parallel()
				need(t, v.tool)
				m := newMine(t, d)
				ctx, port := m.context(own)
				must(t, m.SetCertificate(m.ctx, ctx, "one.test", one.CertFile, one.KeyFile))
				must(t, m.SetCertificate(m.ctx, ctx, "*.two.test", two.CertFile, two.KeyFile))
				come := make(chan error, 1)
				go func() {
					h, err := m.Accept(m.ctx, ctx, "", 0)
					if err == nil {
						if got := m.fact(h, "server-name"); !strings.EqualFold(got, host) {
							t.Errorf("the server was asked for %q, want %q", got, host)
						}
						err = m.answer(h)
					}
					come <- err
				}()
				printed, left := v.visit(port, host, ca.File, nil)
				err := <-come
				if got := strings.HasSuffix(printed, ourPage) && left == nil; got != found {
					t.Errorf("it has got the page: %v, want %v: %q, %v", got, found, printed, left)
				}
				if found {
					must(t, err)
				} else if err == nil { // it has ended the connection, in the handshake or behind it
					t.Error("it takes a certificate of another name")
				}
			})
		}
	}
}
