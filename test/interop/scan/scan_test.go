//go:build scan

package scan

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

func TestMain(m *testing.M) { testd.Main(m) }

// scanTime is the time after which a scan is ended. A scan takes 30 s on a quiet machine, and 4 min
// on a busy one.
const scanTime = 15 * time.Minute

// command returns the command for a scanner. make libssl-matrix runs the tests in the file system
// of another Debian release, which may lack the scanner. If so, command takes the machine's
// scanner, and runs it in the machine's file system (TLSD_TEST_HOST is its path). If there is no
// scanner at all, the test is skipped, or fails if TLSD_TEST_STRICT is 1.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return exec.Command(path, args...)
	}
	if host, path := os.Getenv("TLSD_TEST_HOST"), filepath.Join("/usr/bin", name); host != "" {
		if _, err := os.Stat(filepath.Join(host, path)); err == nil {
			cmd := exec.Command(path, args...)
			cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: host}
			return cmd
		}
	}
	testkit.Missing(t, "%s is not installed", name)
	return nil
}

// run runs a scanner to its end, and returns its output. The scanner has no home folder, so it
// finds no configuration. MAX_WAITSOCK is how many seconds testssl.sh waits for an answer. On a
// busy machine it would otherwise take a late answer for a bug of the server.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scanTime)
	defer cancel()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/nonexistent",
		"TERM=dumb", "MAX_WAITSOCK=60", "TMPDIR=" + t.TempDir()}
	cmd.WaitDelay = 10 * time.Second
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	done := make(chan struct{})
	if err := testd.Spawn(cmd, func() { cmd.Wait(); close(done) }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-ctx.Done():
		cmd.Process.Kill()
		<-done
		t.Fatalf("%s has not ended within %v:\n%s", cmd.Path, scanTime, out.String())
	}
	return out.String()
}

// serve starts a server that accepts every client until the test ends. After its handshake a client
// may send something. Then the server closes the connection. serve returns the port and the version
// of OpenSSL.
func serve(t *testing.T, ca *testcert.CA, key testcert.KeyType) (port int, version string) {
	t.Helper()
	cert := ca.Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
		IPs: []string{"127.0.0.1"}, Key: key,
		NotAfter: time.Now().Add(90 * 24 * time.Hour)})
	// the scanners are slow on a busy machine
	d := testd.Start(t, "--accept-handshake-timeout=60s")
	c := d.Dial(t)
	ctx, cancel := context.WithCancel(context.Background())
	h, err := c.NewServerContext(ctx, cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if version, err = c.Version(ctx, 0); err != nil {
		t.Fatal(err)
	}
	port = testkit.Port(t)
	done := make(chan error, 1)
	go func() { done <- accept(ctx, c, h, port) }()
	testd.AwaitListener(t, port)
	t.Cleanup(func() {
		expectAGoodClient(t, port, ca)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("tls.Accept fails during the scan: %v", err)
		}
	})
	return port, version
}

func accept(ctx context.Context, c *client.Client, h client.Handle, port int) error {
	for {
		conn, err := c.Accept(ctx, h, "127.0.0.1", port)
		var e *client.Error
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			go func() {
				short, stop := context.WithTimeout(ctx, time.Second)
				defer stop()
				c.Read(short, conn, 1<<10) // the client may send anything
				c.CloseConn(context.WithoutCancel(ctx), conn)
			}()
		case errors.As(err, &e) && (e.Kind == client.KindHandshake ||
			e.Kind == client.KindTimeout):
		default:
			return err
		}
	}
}

// expectAGoodClient checks that the server still serves a good client after the scan.
func expectAGoodClient(t *testing.T, port int, ca *testcert.CA) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: testkit.Patience},
		Config: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}}
	c, err := d.Dial("tcp", testkit.Addr(port))
	if err != nil {
		t.Errorf("after the scan a good client cannot connect: %v", err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Errorf("after the scan a good client cannot write: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the scan a good client's Read returns %v, want io.EOF", err)
	}
}

// A finding is what a scanner reports, and the reason why the report is right.
type finding struct {
	what string
	why  string
	only string // versions of OpenSSL that have it: "3.0 4" is 3.0 and all 4.x; empty: all
}

// compare checks that the findings of a scan are those of a table. The last parameter lists other
// findings, which a scan may have or not.
func compare(t *testing.T, version string, found []string, table []finding, sometimes ...finding) {
	t.Helper()
	var explained []string
	for _, f := range sometimes {
		if slices.Contains(found, f.what) {
			table = append(slices.Clip(table), f)
		}
	}
	for _, f := range table {
		if f.why == "" {
			t.Errorf("the table has %q without a reason", f.what)
		}
		if !f.holds(version) {
			continue
		}
		explained = append(explained, f.what)
		if !slices.Contains(found, f.what) {
			t.Errorf("the scanner has not found %q, which the table has", f.what)
		}
	}
	for _, f := range found {
		if !slices.Contains(explained, f) {
			t.Errorf("the scanner has found %q, which the table lacks", f)
		}
	}
	if len(found) == 0 {
		t.Error("the scanner has found nothing; has it scanned the server?")
	}
	t.Logf("in figures: %s, %s: %d findings, %d in the table", t.Name(), version, len(found),
		len(explained))
}

// holds says whether a finding is expected with a version of OpenSSL, such as "OpenSSL 3.5.4".
func (f finding) holds(version string) bool {
	if f.only == "" {
		return true
	}
	return slices.ContainsFunc(strings.Fields(f.only), func(v string) bool {
		return strings.HasPrefix(version, fmt.Sprintf("OpenSSL %s", v))
	})
}
