package admin

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// The metrics count what sessions do, and keep these counts after the sessions have ended.
func TestMetricsHaveWhatSessionsDo(t *testing.T) {
	t.Parallel()
	policy := t.TempDir() + "/policy.toml"
	if err := os.WriteFile(policy, []byte("[default]\nlisten = []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, e, stranger := start(t, "--policy="+policy), startEcho(t), startEcho(t)
	c := d.Dial(t)
	talk(t, c, e.connect(t, c), "hello")
	h, err := c.NewClient(t.Context(), stranger.host, stranger.port)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Handshake(t.Context(), h); err == nil {
		t.Fatal("a handshake has succeeded with a server whose CA is not trusted")
	}
	d.says([]string{"metrics"}, "tlsd_sessions 1\n", `tlsd_handles{kind="connection"} 2`+"\n",
		`tlsd_workers{state="serving"} 1`+"\n")
	c.Close()
	if err := syscall.Kill(d.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.says([]string{"metrics"}, "tlsd_sessions 0\n", `tlsd_handles{kind="connection"} 0`+"\n",
		`tlsd_handshakes_total{result="ok",role="client",version="TLSv1.3"} 1`+"\n",
		`tlsd_handshakes_total{result="verify",role="client",version=""} 1`+"\n",
		"tlsd_handshake_seconds_count 2\n",
		`tlsd_handshake_seconds_bucket{le="+Inf"} 2`+"\n",
		`tlsd_bytes_total{direction="in"} 5`+"\n",
		`tlsd_bytes_total{direction="out"} 5`+"\n",
		`tlsd_sessions_ended_total{result="caller"} 1`+"\n",
		"tlsd_session_start_seconds_count 1\n",
		`tlsd_policy_reloads_total{result="ok"} 1`+"\n", "tlsd_healthy 1\n",
		"tlsd_log_dropped_total 0\n",
		`tlsd_build_info{library="OpenSSL `)
}

// The metrics have the expiry of a certificate only as long as a server context has the
// certificate.
func TestMetricsHaveTheExpiryOfServersCertificates(t *testing.T) {
	t.Parallel()
	d := start(t, "--reload-certificates=auto")
	c := d.Dial(t)
	h, cert := lasting(t, c)
	sample := fmt.Sprintf(`tlsd_certificate_expiry_time_seconds{serial="%x"} %s`+"\n",
		cert.Cert.SerialNumber, exact(cert.Cert.NotAfter))
	if got := d.must("metrics"); !strings.Contains(got, sample) {
		t.Errorf("the metrics lack the certificate's expiry, %s: %s", sample, got)
	}
	d.says([]string{"metrics"}, `tlsd_certificate_reloads_total{result="failed"} 0`+"\n",
		`tlsd_certificate_reloads_total{result="ok"} 0`+"\n")
	if err := c.CloseServerContext(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if got := d.must("metrics"); strings.Contains(got, `{serial=`) {
		t.Errorf("the metrics still have the certificate of a closed context: %s", got)
	}
	lasting(t, c)
	c.Close()
	testkit.Until(t, "the metrics drop the certificate of an ended session",
		func() bool { return !strings.Contains(d.must("metrics"), `{serial=`) })
}

// lasting makes a server context whose certificate is valid for 100 days.
func lasting(t *testing.T, c *client.Client) (client.Handle, *testcert.Cert) {
	t.Helper()
	cert := testcert.SelfSigned(t, testcert.Leaf{CN: "a server",
		NotAfter: time.Now().Add(100 * 24 * time.Hour)})
	h, err := c.NewServerContext(t.Context(), cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return h, cert
}

// exact writes a time as the value of a metric.
func exact(at time.Time) string { return strconv.FormatFloat(float64(at.Unix()), 'g', -1, 64) }

// The metrics count the handshakes of servers, and keep the counts after the death of the worker,
// with --isolation=session and with --isolation=shared.
func TestMetricsOfServers(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"session", "shared"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			d := start(t, "--isolation="+isolation, "--workers=1")
			c := d.Dial(t)
			serve(t, c)
			d.says([]string{"metrics"}, `tlsd_handles{kind="context"} 1`+"\n",
				`tlsd_handles{kind="connection"} 1`+"\n",
				`tlsd_handshakes_total{result="ok",role="server",version="TLSv1.2"} 1`+"\n")
			pid := worker(t, d)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			d.says([]string{"metrics"}, `tlsd_handles{kind="context"} 0`+"\n",
				`tlsd_worker_deaths_total{cause="killed"} 1`+"\n",
				`tlsd_sessions_ended_total{result="lost"} 1`+"\n",
				`tlsd_handshakes_total{result="ok",role="server",version="TLSv1.2"} 1`+"\n")
		})
	}
}

// tlsd does not ask workers for their metrics. So the metrics have the figures of a worker that is
// stopped.
func TestMetricsNeedNoWorker(t *testing.T) {
	t.Parallel()
	d, e := start(t, "--watchdog=10m"), startEcho(t)
	c := d.Dial(t)
	talk(t, c, e.connect(t, c), "hello")
	pid := worker(t, d)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	testkit.Until(t, "the worker is stopped", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return strings.Contains(string(stat), ") T ") // T: stopped, proc_pid_stat(5)
	})
	if got := d.must("health"); !strings.Contains(got, "1 serving") {
		t.Errorf("tlsshim health does not count the stopped worker: %q", got)
	}
	if got := d.must("metrics"); !strings.Contains(got,
		`tlsd_bytes_total{direction="in"} 5`+"\n") {
		t.Errorf("the metrics lack the bytes of the stopped worker: %s", got)
	}
	if got := d.must("sessions"); !strings.Contains(got, "its worker does not answer") {
		t.Errorf("the worker was not stopped, so this test has checked nothing: %s", got)
	}
}
