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

// scanTime ends a scan that hangs. One takes 30 s on a quiet machine, and 4 min on a busy one.
const scanTime = 15 * time.Minute

// command finds a scanner. A root that lacks it uses the machine's scanner with the machine's file
// system; TLSD_TEST_HOST is the path of that file system. Without a scanner the test is skipped;
// with TLSD_TEST_STRICT=1 it fails.
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

// run runs a scanner to its end. The scanner has no home folder, so it finds no configuration. On a
// busy machine testssl.sh must wait for answers (MAX_WAITSOCK, seconds). Otherwise it takes a late
// answer for a bug of the server.
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

// serve accepts every client until the test ends. A client that completes its handshake may send
// something, and its connection is closed. It returns the port and the version of OpenSSL.
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
			t.Errorf("tls.Accept during the scan: %v", err)
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
				c.Read(short, conn, 1<<10) // whatever it is
				c.CloseConn(context.WithoutCancel(ctx), conn)
			}()
		case errors.As(err, &e) && (e.Kind == client.KindHandshake ||
			e.Kind == client.KindTimeout):
		default:
			return err
		}
	}
}

// expectAGoodClient checks that the scan has left nothing that keeps others out.
func expectAGoodClient(t *testing.T, port int, ca *testcert.CA) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: testkit.Patience},
		Config: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}}
	c, err := d.Dial("tcp", testkit.Addr(port))
	if err != nil {
		t.Errorf("a good client after the scan: %v", err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Errorf("a good client after the scan writes: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a good client after the scan reads: %v, want the end", err)
	}
}

// A finding is a finding of a scanner, and why it is right.
type finding struct {
	what string
	why  string
	only string // the versions of OpenSSL that have it: "3.0 3.5"; empty: all
}

// compare compares the findings with a table, and with findings that a scanner has only sometimes.
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
			t.Errorf("%q is not explained", f.what)
		}
		if !f.holds(version) {
			continue
		}
		explained = append(explained, f.what)
		if !slices.Contains(found, f.what) {
			t.Errorf("%q is expected and was not found", f.what)
		}
	}
	for _, f := range found {
		if !slices.Contains(explained, f) {
			t.Errorf("%q was found and is not explained", f)
		}
	}
	if len(found) == 0 {
		t.Error("nothing was found: has anything been scanned?")
	}
	t.Logf("in figures: %s, %s: %d findings, %d in the table", t.Name(), version, len(found),
		len(explained))
}

func (f finding) holds(version string) bool {
	if f.only == "" {
		return true
	}
	return slices.ContainsFunc(strings.Fields(f.only), func(v string) bool {
		return strings.HasPrefix(version, fmt.Sprintf("OpenSSL %s", v))
	})
}
