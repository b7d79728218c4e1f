package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testkit"
	"tlsd/openssl"
)

// ours returns the verdict of package openssl: the error of NewClient, or of Handshake with a
// crypto/tls server. The server shows the chain's bytes unchanged, in the given version of TLS.
func ours(t *testing.T, lib *openssl.Library, c chain, host string, version uint16) error {
	t.Helper()
	bundle, err := lib.ParseCABundle("bundle.pem", pemOf(c.trust...))
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Free()
	ctx, err := lib.NewClientContext(bundle)
	testkit.Must(t, err)
	defer ctx.Free()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	testkit.Must(t, err)
	peer, err := l.Accept()
	testkit.Must(t, err)
	served := make(chan error, 1)
	go func() {
		defer peer.Close()
		peer.SetDeadline(time.Now().Add(testkit.Patience))
		s := tls.Server(peer, &tls.Config{
			Certificates: []tls.Certificate{{Certificate: c.shown, PrivateKey: c.key}},
			MaxVersion:   version,
		})
		err := s.Handshake()
		io.Copy(io.Discard, s) // until the client closes
		served <- err
	}()
	conn, err := ctx.NewClient(nc.(*net.TCPConn), host)
	if err == nil {
		limit, cancel := context.WithTimeout(context.Background(), testkit.Patience)
		err = conn.Handshake(limit)
		cancel()
		conn.Close()
	}
	if serr := <-served; err == nil && serr != nil {
		t.Fatalf("the client accepts, but the server's handshake fails: %v", serr)
	}
	return err
}

// A command is `openssl` of the same version as the library under test.
type command struct {
	exe string
	env []string
}

// findCommand returns nil and the reason if there is no such command.
func findCommand(lib *openssl.Library) (*command, string) {
	dir := filepath.Dir(lib.Path())
	beside := "LD_LIBRARY_PATH=" + dir
	candidates := []command{
		// for a library in usr/lib/ARCH
		{filepath.Join(dir, "../../bin/openssl"), []string{beside}},
		{filepath.Join(dir, "../bin/openssl"), []string{beside}},
	}
	if exe, err := exec.LookPath("openssl"); err == nil {
		candidates = append(candidates, command{exe, nil})
	}
	var seen []string
	for _, c := range candidates {
		out, err := c.run("version")
		if err != nil {
			continue
		}
		// for example: OpenSSL 3.0.19 27 Jan 2026 (Library: OpenSSL 3.0.19 27 Jan 2026)
		version := strings.TrimSpace(out)
		loaded := version
		if _, library, ok := strings.Cut(version, "(Library: "); ok {
			loaded = strings.TrimSuffix(library, ")")
		}
		if loaded == lib.Version() && strings.HasPrefix(version, lib.Version()) {
			return &c, ""
		}
		seen = append(seen, c.exe+" is "+version)
	}
	return nil, fmt.Sprintf("no openssl command of the version %s: %s", lib.Version(),
		strings.Join(seen, "; "))
}

func (c *command) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.exe, args...)
	cmd.Env = append(cmd.Environ(), c.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var verifyError = regexp.MustCompile(`(?m)^error (\d+) at (\d+) depth lookup: ?(.*)$`)

// verify returns the verdict of `openssl verify`: "(code) at depth n: reason", or one of the
// constants below. If the command reports several errors, verify returns the first one. The
// security level and partial chains are set as for our clients.
func (c *command) verify(t *testing.T, ch chain, host string) string {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, ders ...[]byte) string {
		path := filepath.Join(dir, name)
		testkit.Must(t, os.WriteFile(path, pemOf(ders...), 0o600))
		return path
	}
	args := []string{"verify", "-no-CApath", "-CAfile", file("trust.pem", ch.trust...),
		"-partial_chain",
		"-purpose", "sslserver", "-auth_level", securityLevel}
	if net.ParseIP(host) != nil {
		args = append(args, "-verify_ip", host)
	} else {
		args = append(args, "-verify_hostname", host)
	}
	if len(ch.shown) > 1 {
		args = append(args, "-untrusted", file("untrusted.pem", ch.shown[1:]...))
	}
	leaf := file("leaf.pem", ch.shown[0])
	out, err := c.run(append(args, leaf)...)
	if m := verifyError.FindStringSubmatch(out); m != nil && err != nil {
		return fmt.Sprintf("(%s) at depth %s: %s", m[1], m[2], m[3])
	}
	if err == nil && strings.Contains(out, leaf+": OK") {
		return accepted
	}
	if strings.Contains(strings.ToLower(out), "unable to load") ||
		strings.Contains(out, "Could not ") {
		return unreadable
	}
	if err != nil && out == "" {
		return silent
	}
	t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	return ""
}

// Verdicts without a number.
const (
	accepted   = "accepted"
	unreadable = "cannot read it"
	silent     = "fails without a word"
)

// The kinds of verdicts that crypto/x509 has.
const (
	badTime      = "not valid at this time"
	badAuthority = "not by a trusted authority"
	badName      = "not for this name or address"
	badUsage     = "not for this usage"
	badCA        = "an authority that must not be one"
	badPath      = "path too long"
	badScope     = "outside of name constraints"
	badCritical  = "a critical extension that is not known"
	badStrength  = "too weak"
	badForm      = "malformed"
)

// goVerify returns the verdict of crypto/x509, as one of the kinds above, and the error behind it.
func goVerify(c chain, host string) (kind string, why error) {
	leaf, err := x509.ParseCertificate(c.shown[0])
	if err != nil {
		return badForm, err
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		DNSName: host}
	for _, der := range c.trust {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return badForm, err
		}
		opts.Roots.AddCert(root)
	}
	for _, der := range c.shown[1:] {
		between, err := x509.ParseCertificate(der)
		if err != nil {
			return badForm, err // crypto/tls, too, refuses the whole chain
		}
		opts.Intermediates.AddCert(between)
	}
	_, err = leaf.Verify(opts)
	return goKind(err), err
}

func goKind(err error) string {
	var (
		invalid  x509.CertificateInvalidError
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		critical x509.UnhandledCriticalExtension
	)
	switch {
	case err == nil:
		return accepted
	case errors.As(err, &unknown):
		// crypto/x509 also returns this error if the signature of a known authority is
		// wrong or too weak
		return badAuthority
	case errors.As(err, &name):
		return badName
	case errors.As(err, &critical):
		return badCritical
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			return badTime
		case x509.NotAuthorizedToSign:
			return badCA
		case x509.TooManyIntermediates:
			return badPath
		case x509.IncompatibleUsage:
			return badUsage
		case x509.CANotAuthorizedForThisName, x509.UnconstrainedName,
			x509.NameConstraintsWithoutSANs, x509.TooManyConstraints:
			return badScope
		}
	}
	return "some other error: " + err.Error()
}
