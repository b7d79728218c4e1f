package openssl_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// OpenSSL's own server asks for new keys (its command K) while we send more than it takes. Every
// byte arrives.
func TestKeyUpdatesOfOpenSSLsServerWhileAWriteWaits(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl here: ", err)
	}
	l, id := load(t), newIdentity(t)
	dir := t.TempDir()
	files := map[string][]byte{"cert.pem": id.cert.CertPEM, "key.pem": id.cert.KeyPEM}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ours, out, commands := sServer(t, program, dir)
	c, err := clientContext(t, l, id.ca.PEM()).NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Handshake(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if c.Version() != "TLSv1.3" {
		t.Skip("no KeyUpdate in ", c.Version())
	}
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(bounded(t), make([]byte, 1))
		read <- err
	}()
	const size = 12 << 20
	const letter = '~' // not in what s_server prints about itself
	wrote := make(chan error, 1)
	go func() {
		line := append(bytes.Repeat([]byte{letter}, 99), '\n')
		_, err := c.Write(bounded(t), bytes.Repeat(line, size/len(line)))
		wrote <- err
	}()
	buf := make([]byte, 256<<10)
	for got, want := 0, size/100*99; got < want; {
		n, err := out.Read(buf)
		got += bytes.Count(buf[:n], []byte{letter})
		if err != nil {
			t.Fatalf("s_server has printed %d of %d letters, and then %v", got, want,
				err)
		}
		if _, err := io.WriteString(commands, "K\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-read:
			t.Fatalf("the peer sends no data, but the Read ends: %v", err)
		default:
		}
	}
	if err := <-wrote; err != nil {
		t.Errorf("Write: %v", err)
	}
}

// sServer starts the command s_server of the program. It returns a connection to the server, the
// server's output, and a writer for commands to the server.
func sServer(t *testing.T, program, dir string) (ours *net.TCPConn, out *bufio.Reader,
	commands io.Writer) {
	t.Helper()
	cmd := exec.CommandContext(bounded(t), program, "s_server", "-accept", "127.0.0.1:0",
		"-naccept", "1",
		"-cert", filepath.Join(dir, "cert.pem"), "-key", filepath.Join(dir, "key.pem"))
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	out = bufio.NewReader(stdout)
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("s_server does not print its address: %v", err)
		}
		address, ok := strings.CutPrefix(strings.TrimSpace(line), "ACCEPT ")
		if !ok {
			continue
		}
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return nc.(*net.TCPConn), out, stdin
	}
}
