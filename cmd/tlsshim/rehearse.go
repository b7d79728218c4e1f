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

// This file does what a script does: a server and a client of one session, on 127.0.0.1, with a
// certificate that is made for it and thrown away. What a daemon says of itself does not show that
// its library has a cipher, that it reads this user's files, and that it looks up names.

// rehearsal is how far that has come.
type rehearsal struct {
	step    string // the last one that was tried; "" if none was
	version string // of TLS, if all went well
	err     error
}

const (
	stepListen = "listening on 127.0.0.1"
	// retry is how long is waited before a client tries again, because the server does not
	// listen yet.
	retry = 10 * time.Millisecond
	// mostPorts is how many ports are tried: another program may be quicker to take one.
	mostPorts = 3
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
	for range mostPorts {
		if r = converse(ctx, s, server); r.step != stepListen || errnoOf(r.err) != "EADDRINUSE" {
			break
		}
	}
	return r
}

// converse has a client of the session speak with its server.
func converse(ctx context.Context, s *client.Client, server client.Handle) rehearsal {
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
		for range accepted { // until it has ended
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
			return rehearsal{step: "looking up localhost and connecting to it", err: err}
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

// errnoOf is the name of the system's error behind one of tlsd's, if there is one.
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

// freePort gives a port of 127.0.0.1 that nobody uses at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// writeCertificate makes a certificate for localhost that signs itself, and its key. A daemon of
// another user must be able to read them, and so everybody is: they are worth nothing afterwards.
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
		SerialNumber: serial, Subject: pkix.Name{CommonName: "tlsshim doctor"}, DNSNames: []string{"localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
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
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.content}), 0o644); err != nil {
			return "", "", err
		}
		if err := os.Chmod(f.path, 0o644); err != nil { // whatever the umask
			return "", "", err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", "", fmt.Errorf("%s: %w", dir, err)
	}
	return certFile, keyFile, nil
}
