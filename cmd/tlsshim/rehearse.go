package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"tlsd/rpc/client"
)

// This file rehearses a script: a server and a client of one session talk on 127.0.0.1, with a
// throw-away certificate. The rehearsal answers two questions that the daemon's own answers leave
// open. Does openssl.cnf leave the daemon's OpenSSL a cipher for a handshake? Can the daemon read
// this user's files and look up names?

// rehearsal is the result of rehearse.
type rehearsal struct {
	step    string // the last step that was tried; "": none
	version string // the version of TLS; "" if a step failed
	err     error
}

const (
	stepListen = "listening on 127.0.0.1"
	// retry is the pause before the client tries again to connect to a server that does not
	// listen yet.
	retry = 10 * time.Millisecond
	// maxPorts limits the ports that are tried. Another program may take a port first.
	maxPorts = 3
)

func rehearse(ctx context.Context, s *client.Client) rehearsal {
	dir, err := os.MkdirTemp("", "tlsshim-doctor-")
	if err != nil {
		return rehearsal{step: "making a certificate", err: err}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	certFile, keyFile, err := writeCertificate(dir)
	if err != nil {
		return rehearsal{step: "making a certificate", err: err}
	}
	if err := s.SetCaBundle(ctx, certFile); err != nil {
		return rehearsal{step: "reading a CA bundle", err: err}
	}
	server, err := s.NewServerContext(ctx, certFile, keyFile)
	if err != nil {
		return rehearsal{step: "making a server's context", err: err}
	}
	var r rehearsal
	for range maxPorts {
		if r = connectBoth(ctx, s, server); r.step != stepListen ||
			errnoOf(r.err) != "EADDRINUSE" {
			break
		}
	}
	return r
}

// connectBoth makes the server listen, connects a client of the same session to it, and does the
// handshake on both sides.
func connectBoth(ctx context.Context, s *client.Client, server client.Handle) rehearsal {
	port, err := freePort()
	if err != nil {
		return rehearsal{step: stepListen, err: err}
	}
	ctx, cancel := context.WithCancel(ctx)
	accepted := make(chan error, 1)
	go func() {
		defer close(accepted)
		_, err := s.Accept(ctx, server, "127.0.0.1", port)
		accepted <- err
	}()
	defer func() {
		cancel()
		for range accepted { // until the goroutine has ended
		}
	}()

	var conn client.Handle
	for {
		if conn, err = s.NewClient(ctx, "localhost", port); err == nil {
			break
		}
		select {
		case why := <-accepted:
			return rehearsal{step: stepListen, err: why}
		case <-time.After(retry):
		}
		if errnoOf(err) != "ECONNREFUSED" || ctx.Err() != nil {
			const step = "looking up localhost and connecting to it"
			return rehearsal{step: step, err: err}
		}
	}
	if err := s.Handshake(ctx, conn); err != nil {
		return rehearsal{step: "a handshake as a client", err: err}
	}
	if err := <-accepted; err != nil {
		return rehearsal{step: "a handshake as a server", err: err}
	}
	version, err := s.Version(ctx, conn)
	return rehearsal{step: "asking for the version", version: version, err: err}
}

// errnoOf returns the name of the system's error, such as ECONNREFUSED, if err is an error of tlsd
// that has one; otherwise "".
func errnoOf(err error) string {
	var e *client.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Data.Errno
}

func isKind(err error, k client.Kind) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Kind == k
}

// freePort gives a port of 127.0.0.1 that is free at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// writeCertificate writes a self-signed certificate for localhost, and its key. Everybody may read
// both files, because the daemon may run as another user. Nobody trusts the certificate after the
// rehearsal.
func writeCertificate(dir string) (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return "", "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "tlsshim doctor"},
		DNSNames:              []string{"localhost"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	for _, f := range []struct {
		path, kind string
		content    []byte
	}{{certFile, "CERTIFICATE", cert}, {keyFile, "PRIVATE KEY", der}} {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.content})
		if err := os.WriteFile(f.path, text, 0o644); err != nil {
			return "", "", err
		}
		if err := os.Chmod(f.path, 0o644); err != nil { // undoes the umask
			return "", "", err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", "", fmt.Errorf("%s: %w", dir, err)
	}
	return certFile, keyFile, nil
}
