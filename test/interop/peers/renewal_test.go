package peers

import (
	"crypto/tls"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A server renews its certificate 1,000 times, while clients of several kinds connect again and
// again. No client is refused or reset. A client that connects after the last renewal gets the
// newest certificate.
func TestAThousandRenewalsUnderLoadDropNobody(t *testing.T) {
	t.Parallel()
	const renewals, accepting, leastVisits = 1000, 4, 5
	ca := testcert.NewCA(t, "Test CA")
	var pair [2]*testcert.Cert
	for i := range pair {
		pair[i] = ca.Issue(t, testcert.Leaf{CN: fmt.Sprint("certificate ", i),
			DNS: []string{"localhost"}})
	}
	m := newMine(t, testd.Start(t))
	ctx, port := m.context(pair[1])

	var accepts sync.WaitGroup
	over := make(chan struct{})
	for range accepting {
		accepts.Go(func() {
			for {
				h, err := m.Accept(m.ctx, ctx, "", 0)
				if err == nil {
					err = m.answer(h)
				}
				if err != nil {
					select {
					case <-over:
					default:
						t.Errorf("our server loses a client: %v", err)
					}
					return
				}
			}
		})
	}
	// Each kind of client connects again and again during the renewals. The renewals go on
	// until each kind has connected often enough.
	kinds := map[string]func() error{}
	for _, v := range visitors {
		if _, err := exec.LookPath(v.tool); err != nil {
			t.Logf("without %s, which is not installed", v.tool)
			continue
		}
		kinds[v.name] = func() error {
			printed, err := v.visit(port, "localhost", ca.File, nil)
			if err == nil && !strings.HasSuffix(printed, ourPage) {
				err = fmt.Errorf("the client has printed %q", printed)
			}
			return err
		}
	}
	for name, cache := range map[string]tls.ClientSessionCache{"crypto/tls": nil,
		"crypto/tls that resumes": tls.NewLRUClientSessionCache(4)} {
		kinds[name] = func() error {
			_, err := page(port, &tls.Config{RootCAs: ca.Pool(),
				ServerName: "localhost", ClientSessionCache: cache})
			return err
		}
	}
	var (
		coming  sync.WaitGroup
		waitFor atomic.Int64 // how many kinds have not connected often enough
		renewed = make(chan struct{})
	)
	waitFor.Store(int64(len(kinds)))
	for name, visit := range kinds {
		coming.Go(func() {
			n := 0
			for ; ; n++ {
				if n == leastVisits {
					waitFor.Add(-1)
				}
				select {
				case <-renewed:
					t.Logf("%s has connected %d times", name, n)
					return
				default:
				}
				if err := visit(); err != nil {
					t.Errorf("the client %s fails at visit %d: %v", name, n,
						err)
					if n < leastVisits {
						waitFor.Add(-1)
					}
					return
				}
			}
		})
	}
	done := 0
	for ; done < renewals || waitFor.Load() > 0; done++ {
		c := pair[done%2]
		if err := m.SetCertificate(m.ctx, ctx, "", c.CertFile, c.KeyFile); err != nil {
			t.Errorf("renewal %d fails: %v", done, err)
			break
		}
	}
	close(renewed)
	coming.Wait()
	t.Logf("%d renewals", done)
	last, err := page(port, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	testkit.Must(t, err)
	if want := pair[(done-1)%2].Cert.Subject.CommonName; last != want {
		t.Errorf("after the last renewal a client gets %s, want %s", last, want)
	}
	close(over)
	testkit.Must(t, m.CloseServerContext(m.ctx, ctx))
	accepts.Wait()
}

// page connects, gets our page, and returns the common name of the server.
func page(port int, cfg *tls.Config) (string, error) {
	c, err := tls.Dial("tcp", testkit.Addr(port), cfg)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	if err == nil && !strings.HasSuffix(string(got), ourPage) {
		err = fmt.Errorf("the server has sent %q", got)
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, err
}
