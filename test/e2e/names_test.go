package e2e

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// If the look-up of a host's name fails, the errno of the error says why. This errno is a name of
// getaddrinfo(3), such as EAI_AGAIN.
func TestAFailedLookUpHasAName(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	server := nameServer(t)
	// This name server takes the first digit of the name as the response code (RFC 1035 section
	// 4.1.1).
	go func() {
		for buf := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return // the socket was closed
			}
			code := buf[13] - '0' // behind the header and the length of the first label
			buf[2], buf[3] = 0x81, 0x80|code
			server.WriteTo(buf[:n], from)
		}
	}()
	c := testd.Start(t).Dial(t)
	// The response code 3 is NXDOMAIN, and 2 is SERVFAIL.
	for name, want := range map[string]string{"3.example": "EAI_NONAME",
		"2.example": "EAI_AGAIN"} {
		_, err := c.NewClient(t.Context(), name, 443)
		var e *client.Error
		if !errors.As(err, &e) || e.Kind != client.KindConnect || e.Data.Errno != want ||
			!strings.Contains(e.Message, "look up "+name) {
			t.Errorf("NewClient of %s: %v, %+v; want kind connect and errno %s", name,
				err, e, want)
		}
	}
}

// nameServer makes this test the name server of its namespaces. It returns the socket to which tlsd
// sends its questions.
func nameServer(t *testing.T) net.PacketConn {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:53")
	testkit.Must(t, err)
	t.Cleanup(func() { server.Close() })
	for file, text := range map[string]string{
		"/etc/hosts":         "127.0.0.1 localhost\n",
		"/etc/nsswitch.conf": "hosts: files dns\n",
		"/etc/resolv.conf":   "nameserver 127.0.0.1\noptions timeout:3600 attempts:1\n",
	} {
		if exists(file) {
			mount(t, writeFile(t, filepath.Join(t.TempDir(), "file"), text), file, "",
				unix.MS_BIND)
		}
	}
	return server
}

// The name server does not answer. The look-up ends when the call is cancelled, when its session
// ends, and after the connect timeout. The C library cannot end a look-up early. So tlsd uses Go's
// own resolver.
func TestALookUpThatGetsNoAnswer(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	server := nameServer(t)
	asked := func(t *testing.T) {
		t.Helper()
		server.SetReadDeadline(time.Now().Add(testkit.Patience))
		if _, _, err := server.ReadFrom(make([]byte, 512)); err != nil {
			t.Fatalf("tlsd has not asked the name server: %v", err)
		}
	}
	lookUp := func(ctx context.Context, c *client.Client, name string) <-chan error {
		ended := make(chan error, 1)
		go func() { _, err := c.NewClient(ctx, name, 443); ended <- err }()
		return ended
	}
	wants := func(t *testing.T, ended <-chan error, kind client.Kind) {
		t.Helper()
		var e *client.Error
		err := testkit.Receive(t, ended, "the look-up ends")
		if !errors.As(err, &e) || e.Kind != kind {
			t.Errorf("a look-up without an answer has ended with %v, want kind %s", err,
				kind)
		}
	}

	patient := testd.Start(t, "--connect-timeout=1h")
	c := patient.Dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := lookUp(ctx, c, "one.example")
	asked(t)
	cancel()
	wants(t, ended, client.KindCancelled)

	ended = lookUp(t.Context(), c, "two.example")
	asked(t)
	c.Close()
	<-ended
	if err := patient.Stop(t); err != nil { // Stop fails the test if a worker still runs
		t.Error(err)
	}

	c = testd.Start(t, "--connect-timeout=300ms").Dial(t)
	wants(t, lookUp(t.Context(), c, "three.example"), client.KindTimeout)
}
