package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// The metrics, the alert rules and the dashboard fit one another, and Prometheus reads them.

const packaging = "../../../packaging/"

// program finds a program of Debian's package prometheus. If the program is missing, the test is
// skipped. With TLSD_TEST_PROMETHEUS=1, the test fails instead.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("TLSD_TEST_PROMETHEUS") == "1" {
		t.Fatalf("TLSD_TEST_PROMETHEUS=1: %v: install Debian's package prometheus", err)
	}
	if err != nil {
		t.Skipf("%v: install Debian's package prometheus, or run make test-monitoring", err)
	}
	return path
}

func TestTheRulesAreGood(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(program(t, "promtool"), "check", "rules",
		packaging+"prometheus/tlsd.rules.yml").CombinedOutput()
	if err != nil {
		t.Errorf("promtool check rules finds faults in tlsd.rules.yml: %v\n%s", err, out)
	}
}

// soon is a test for promtool. TlsdCertificateExpires must fire only for certificate a, and
// TlsdCertificateNotReloaded only for instance y.
const soon = `
rule_files: [%q]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'tlsd_certificate_expiry_time_seconds{serial="a"}', values: '1000000x20'}
      - {series: 'tlsd_certificate_expiry_time_seconds{serial="b"}', values: '2000000x20'}
      - {series: 'tlsd_certificate_reloads_total{result="ok",instance="x"}', values: '0 0 1x18'}
      - {series: 'tlsd_certificate_reloads_total{result="failed",instance="x"}', values: '0 1 1x18'}
      - {series: 'tlsd_certificate_reloads_total{result="ok",instance="y"}', values: '0x20'}
      - {series: 'tlsd_certificate_reloads_total{result="failed",instance="y"}', values: '0 1 1x18'}
    alert_rule_test:
      - eval_time: 10m
        alertname: TlsdCertificateExpires
        exp_alerts: [{exp_labels: {serial: a, severity: warning}, exp_annotations: {
          summary: "A certificate of a server has expired, or expires in less than 14 days.",
          description: "The certificate with the serial a expires in 11d 13h 36m 40s.
            The log's lines about the certificate have the path of its file."}}]
      - eval_time: 10m
        alertname: TlsdCertificateNotReloaded
        exp_alerts: [{exp_labels: {result: failed, instance: "y", severity: warning},
          exp_annotations: {
          summary: "A server could not load files that were renewed.",
          description: "The server goes on with the files that it has loaded before.
            The log says what is wrong with the new files."}}]
`

func TestTheRulesFireForCertificates(t *testing.T) {
	t.Parallel()
	rules, err := filepath.Abs(packaging + "prometheus/tlsd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(testkit.Dir(t), "soon.yml")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(soon, rules)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program(t, "promtool"), "test", "rules", file).CombinedOutput()
	if err != nil {
		t.Errorf("the alert rules must pass the tests in soon; promtool test rules: "+
			"%v\n%s", err, out)
	}
}

// The command promtool check metrics has no complaint about the names, types and help texts.
func TestTheMetricsAreGood(t *testing.T) {
	t.Parallel()
	promtool, d := program(t, "promtool"), start(t)
	d.says([]string{"metrics"}, "tlsd_confinement{")
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(d.must("metrics"))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics must not complain: %v\n%s", err, out)
	}
}

// export runs tlsshim exporter, and returns the address where it listens.
func (d *watched) export() string {
	d.t.Helper()
	cmd := exec.Command(testd.Exe(d.t, "tlsshim"), "exporter", "--listen", "127.0.0.1:0",
		"--admin-socket", d.admin)
	cmd.Env = []string{"PATH=/nonexistent"}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	said := make(chan string, 1)
	run(d.t, cmd, func() {
		in := bufio.NewReader(stderr)
		line, _ := in.ReadString('\n')
		said <- line
		io.Copy(io.Discard, in)
	})
	address, ok := strings.CutPrefix(strings.TrimSpace(<-said), "tlsshim: metrics at http://")
	if !ok {
		d.t.Fatal("tlsshim exporter must print \"tlsshim: metrics at http://\" and its " +
			"address in its first line, and does not")
	}
	return strings.TrimSuffix(address, "/metrics")
}

// run starts a program, and ends it with SIGTERM at the test's end. Its exit status must be 0. The
// function read reads the program's output until the program closes it.
func run(t *testing.T, cmd *exec.Cmd, read func()) {
	t.Helper()
	exited := make(chan error, 1)
	if err := testd.Spawn(cmd, func() {
		var reading sync.WaitGroup
		reading.Go(read)
		reading.Wait()
		exited <- cmd.Wait()
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-exited:
			if err != nil {
				t.Errorf("%s must end with exit status 0 after SIGTERM: "+
					"%v", cmd.Path, err)
			}
		case <-time.After(testkit.Patience):
			t.Errorf("%s does not end after SIGTERM", cmd.Path)
			_ = cmd.Process.Kill()
			<-exited
		}
	})
}

func get(t *testing.T, address string) (status int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

func TestTheExporterServesOnlyMetrics(t *testing.T) {
	t.Parallel()
	d := start(t, "--idle-exit=10m")
	at := d.export()
	if status, text := get(t, "http://"+at+"/metrics"); status != 200 ||
		!strings.Contains(text, "tlsd_up 1\n") ||
		!strings.Contains(text, "tlsd_sessions 0\n") {
		t.Errorf("GET /metrics: status %d, %s; want 200, with tlsd_up 1 and "+
			"tlsd_sessions 0", status, text)
	}
	if status, _ := get(t, "http://"+at+"/"); status != 404 {
		t.Errorf("GET /: status %d; want 404", status)
	}
	d.must("drain")
	<-d.Exited()
	if status, text := get(t, "http://"+at+"/metrics"); status != 200 ||
		!strings.Contains(text, "\ntlsd_up 0\n") ||
		strings.Contains(text, "tlsd_sessions") {
		t.Errorf("GET /metrics after the end of tlsd: status %d, %s; "+
			"want 200, with tlsd_up 0 and without tlsd_sessions", status, text)
	}
}

// A real Prometheus scrapes the exporter, loads the rules, and answers each query of the dashboard.
func TestPrometheusAnswersTheDashboard(t *testing.T) {
	t.Parallel()
	prometheus := program(t, "prometheus")
	d, e := start(t), startEcho(t)
	c := d.Dial(t)
	talk(t, c, e.connect(t, c), "hello")
	lasting(t, c)
	d.says([]string{"metrics"}, "tlsd_confinement{") // so a worker has reported its confinement
	exporter := d.export()

	dir := testkit.Dir(t)
	rules, err := filepath.Abs(packaging + "prometheus/tlsd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs: [{job_name: tlsd, static_configs: [{targets: [%q]}]}]
`, rules, exporter)
	if err := os.WriteFile(dir+"/prometheus.yml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	port := testkit.Port(t)
	cmd := exec.Command(prometheus, "--config.file="+dir+"/prometheus.yml",
		"--storage.tsdb.path="+dir+"/data",
		fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	run(t, cmd, func() { io.Copy(io.Discard, stderr) })
	at := fmt.Sprintf("http://127.0.0.1:%d/api/v1/", port)

	query := func(expr string) (samples int) {
		status, text := get(t, at+"query?query="+url.QueryEscape(expr))
		var answer struct {
			Status string
			Error  string
			Data   struct{ Result []json.RawMessage }
		}
		if status == 400 {
			t.Fatalf("Prometheus refuses the query %s: %s", expr, text)
		}
		if status != 200 {
			return 0
		}
		decode(t, text, &answer)
		return len(answer.Data.Result)
	}
	// The dashboard uses rate(), which needs two scrapes.
	testkit.Until(t, "Prometheus has scraped twice",
		func() bool { return query("count_over_time(tlsd_sessions[1m]) > 1") == 1 })

	for _, expr := range queries(t) {
		testkit.Until(t, "Prometheus has data for the dashboard's query "+expr,
			func() bool { return query(expr) > 0 })
	}
	if query("tlsd_no_such_metric") != 0 {
		t.Error("a query of a metric that does not exist has an answer: these checks " +
			"prove nothing")
	}
	testkit.Until(t, "Prometheus has evaluated all alert rules, and none fires", func() bool {
		status, text := get(t, at+"rules")
		rules := strings.Count(text, `"type":"alerting"`)
		return status == 200 && rules > 5 &&
			strings.Count(text, `"health":"ok"`) == rules &&
			!strings.Contains(text, `"state":"firing"`)
	})
}

// queries returns the queries of the dashboard. In the place of the variable $instance they have
// .*, for all instances.
func queries(t *testing.T) (list []string) {
	t.Helper()
	text, err := os.ReadFile(packaging + "grafana/tlsd-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	decode(t, string(text), &board)
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			list = append(list, strings.ReplaceAll(target.Expr, "$instance", ".*"))
		}
	}
	if len(list) < 15 {
		t.Fatalf("found only %d queries in the dashboard, want 15 or more: does the "+
			"function queries still fit the file?", len(list))
	}
	return list
}

// The rules and the dashboard use only metrics that exist. Each metric of tlsd is in a rule or in a
// panel.
func TestRulesAndDashboardNameWhatThereIs(t *testing.T) {
	t.Parallel()
	d := start(t)
	have := d.says([]string{"metrics"}, "tlsd_confinement{")
	rules, err := os.ReadFile(packaging + "prometheus/tlsd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(rules) + strings.Join(queries(t), "\n")
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\btlsd_[a-z_]+`).FindAllString(text, -1) {
		base := strings.TrimSuffix(name, "_bucket")
		named[base] = true
		if base != "tlsd_up" && !strings.Contains(have, "# TYPE "+base+" ") {
			t.Errorf("a rule or the dashboard names %s, which is no metric", name)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(have, -1) {
		if !named[m[1]] {
			t.Errorf("the metric %s is in no alert rule and in no panel", m[1])
		}
	}
}
