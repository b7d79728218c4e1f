package openssl_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testkit"
	"tlsd/openssl"
)

// After a TLS 1.3 handshake the peer may still send messages of the handshake layer, also in
// pieces. Until the rest of a message has come, SSL_write wants to read. crypto/tls sends no
// message in pieces. So a forger writes the server's records.

// A forger writes TLS 1.3 records with a server's keys, and reads the client's records (RFC 8446
// section 5.2).
type forger struct {
	conn        net.Conn
	ours, peers trafficKeys
}

// trafficKeys protect the records of one direction. seq is the number of the next record.
type trafficKeys struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// newForger derives the keys from the output of a tls.Config's KeyLogWriter.
func newForger(t *testing.T, conn net.Conn, keyLog string) *forger {
	t.Helper()
	f := &forger{conn: conn}
	f.ours.set(t, logged(t, keyLog, "SERVER_TRAFFIC_SECRET_0"))
	f.peers.set(t, logged(t, keyLog, "CLIENT_TRAFFIC_SECRET_0"))
	return f
}

// logged returns the secret that a key log has under a label.
func logged(t *testing.T, keyLog, label string) (secret []byte) {
	t.Helper()
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	if len(secret) != sha256.Size {
		t.Fatalf("the key log has no %s of %d bytes: %q", label, sha256.Size, keyLog)
	}
	return secret
}

// set derives the keys of a secret (section 7.1, HKDF-Expand-Label).
func (k *trafficKeys) set(t *testing.T, secret []byte) {
	t.Helper()
	k.secret, k.seq = secret, 0
	block, err := aes.NewCipher(k.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	k.iv = k.expand(t, "iv", 12)
}

// update derives the keys that a KeyUpdate announces (section 7.2).
func (k *trafficKeys) update(t *testing.T) {
	t.Helper()
	k.set(t, k.expand(t, "traffic upd", sha256.Size))
}

func (k *trafficKeys) expand(t *testing.T, label string, n int) []byte {
	t.Helper()
	info := append([]byte{0, byte(n), byte(len("tls13 ") + len(label))}, "tls13 "+label...)
	out, err := hkdf.Expand(sha256.New, k.secret, string(append(info, 0)), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// nonce returns the nonce of the next record (section 5.3).
func (k *trafficKeys) nonce() []byte {
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(k.seq >> (56 - 8*i))
	}
	k.seq++
	return nonce
}

// keyUpdate sends a KeyUpdate with update_requested (section 4.6.3), and then uses the new keys.
func (f *forger) keyUpdate(t *testing.T) {
	t.Helper()
	if err := f.tryKeyUpdate(t); err != nil {
		t.Fatal(err)
	}
}

func (f *forger) tryKeyUpdate(t *testing.T) error {
	err := f.trySend(handshakeRecord, []byte{24, 0, 0, 1, 1})
	f.ours.update(t)
	return err
}

const (
	handshakeRecord   = 22
	applicationRecord = 23
)

func (f *forger) send(t *testing.T, contentType byte, content []byte) {
	t.Helper()
	if err := f.trySend(contentType, content); err != nil {
		t.Fatal(err)
	}
}

func (f *forger) trySend(contentType byte, content []byte) error {
	plain := append(bytes.Clone(content), contentType)
	header := []byte{applicationRecord, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(header[3:], uint16(len(plain)+f.ours.aead.Overhead()))
	_, err := f.conn.Write(f.ours.aead.Seal(header, f.ours.nonce(), plain, header))
	return err
}

// receive reads the client's next record, which must have this type and content.
func (f *forger) receive(t *testing.T, contentType byte, content []byte) {
	t.Helper()
	f.conn.SetReadDeadline(time.Now().Add(testkit.Patience))
	header := make([]byte, 5)
	_, err := io.ReadFull(f.conn, header)
	testkit.Must(t, err)
	sealed := make([]byte, binary.BigEndian.Uint16(header[3:]))
	_, err = io.ReadFull(f.conn, sealed)
	testkit.Must(t, err)
	plain, err := f.peers.aead.Open(nil, f.peers.nonce(), sealed, header)
	if err != nil {
		t.Fatalf("the client's record of %d bytes: %v", len(sealed), err)
	}
	if want := append(bytes.Clone(content), contentType); !bytes.Equal(plain, want) {
		t.Fatalf("the client's record has the content and type % x, want % x", plain, want)
	}
}

// newSessionTicket is a NewSessionTicket (section 4.6.1) with a ticket that nobody will use.
func newSessionTicket() []byte {
	body := []byte{0, 0, 0, 60, 1, 2, 3, 4, 1, 9, 0, 16}
	body = append(body, make([]byte, 16)...)
	body = append(body, 0, 0)
	return append([]byte{4, 0, 0, byte(len(body))}, body...)
}

// connectForged returns a client after its handshake. peer is its server, and reads the client's
// data. f writes records to the client in the server's place.
func connectForged(t *testing.T) (c *openssl.Conn, peer *tls.Conn, f *forger) {
	t.Helper()
	l, id := load(t), newIdentity(t)
	ours, peers := tcpPair(t)
	c, err := clientContext(t, l, id.ca.PEM()).NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var keyLog bytes.Buffer
	peer = tls.Server(peers, &tls.Config{
		Certificates:           []tls.Certificate{id.cert.TLS()},
		SessionTicketsDisabled: true, // so the forger's first sequence number is 0
		KeyLogWriter:           &keyLog,
	})
	errc := make(chan error, 1)
	go func() { errc <- peer.HandshakeContext(bounded(t)) }()
	if err := c.Handshake(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
	if suite := peer.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("the forger knows only TLS_AES_128_GCM_SHA256, not %s",
			tls.CipherSuiteName(suite))
	}
	return c, peer, newForger(t, peers, keyLog.String())
}

// stopReadIn sends the first part of a handshake message, and begins a Read that waits for the
// rest. The data that the Read then gets must be equal to want. The channel gets the Read's error.
func (f *forger) stopReadIn(t *testing.T, c *openssl.Conn, ctx context.Context, part []byte,
	want string) <-chan error {
	t.Helper()
	f.send(t, handshakeRecord, part)
	read := make(chan error, 1)
	go func() {
		buf := make([]byte, 100)
		n, err := c.Read(ctx, buf)
		if err == nil && string(buf[:n]) != want {
			err = fmt.Errorf("Read: %q, want %q", buf[:n], want)
		}
		read <- err
	}()
	testkit.Until(t, "the Read is in the middle of the message",
		func() bool { return openssl.InMessage(c) })
	return read
}

// readPart sends the first part of a handshake message, and lets a Read read it. The Read is then
// cancelled.
func (f *forger) readPart(t *testing.T, c *openssl.Conn, part []byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(bounded(t))
	read := f.stopReadIn(t, c, ctx, part, "")
	cancel()
	if err := testkit.Receive(t, read, "the Read to end"); err != context.Canceled {
		t.Fatal("the Read that was cancelled, want context.Canceled: ", err)
	}
}

func expectRead(t *testing.T, c *openssl.Conn, want string) {
	t.Helper()
	buf := make([]byte, 100)
	if n, err := c.Read(bounded(t), buf); err != nil || string(buf[:n]) != want {
		t.Errorf("Read: %q, %v, want %q", buf[:n], err, want)
	}
}

func expectFromClient(t *testing.T, peer *tls.Conn, want string) {
	t.Helper()
	buf := make([]byte, 100)
	if n, err := peer.Read(buf); err != nil || string(buf[:n]) != want {
		t.Errorf("the peer reads %q, %v, want %q", buf[:n], err, want)
	}
}

func TestWriteThatHasToReadSharesTheSocketWithRead(t *testing.T) {
	t.Parallel()
	c, peer, f := connectForged(t)
	ticket := newSessionTicket()
	f.readPart(t, c, ticket[:len(ticket)/2])
	read := make(chan struct{})
	go func() {
		defer close(read)
		expectRead(t, c, "data")
	}()
	// A Write waits too. It can be cancelled, whether it waits for the socket or for its turn.
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if n, err := c.Write(ctx, []byte("lost")); n != 0 ||
			err != context.DeadlineExceeded {
			t.Fatalf("Write in the middle of a message: %d, %v, want DeadlineExceeded",
				n, err)
		}
		cancel()
	}
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		if n, err := c.Write(bounded(t), []byte("hello")); n != 5 || err != nil {
			t.Errorf("Write: %d, %v, want 5 and no error", n, err)
		}
	}()
	time.Sleep(10 * time.Millisecond) // now the Read and the Write usually wait
	f.send(t, handshakeRecord, ticket[len(ticket)/2:])
	// The message is complete and has no data for the Read, so now the Write can go on.
	expectFromClient(t, peer, "hello")
	<-wrote
	f.send(t, applicationRecord, []byte("data"))
	<-read
}

// A Write that must wait for the rest of a handshake message goes on when the message is complete,
// even if a Read has read the last part of the message.
func TestAWriteGoesOnWhoeverReadsTheRestOfTheMessage(t *testing.T) {
	t.Parallel()
	for round := range 200 {
		c, peer, f := connectForged(t)
		ticket := newSessionTicket()
		read := f.stopReadIn(t, c, bounded(t), ticket[:10], "data")
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write(bounded(t), []byte("hello"))
			wrote <- err
		}()
		// The parts come while the Write begins to wait, at another moment in each round. A
		// limit of the number of yields would be no limit of time: each yield lasts as long
		// as the other goroutines want.
		delay := time.Duration(round) * 5 * time.Microsecond
		for begun := time.Now(); time.Since(begun) < delay; {
			runtime.Gosched()
		}
		for _, part := range [][]byte{ticket[10:20], ticket[20:30], ticket[30:]} {
			f.send(t, handshakeRecord, part)
		}
		testkit.Must(t, testkit.Receive(t, wrote, "the Write to end"))
		expectFromClient(t, peer, "hello")
		f.send(t, applicationRecord, []byte("data"))
		testkit.Must(t, testkit.Receive(t, read, "the Read to end"))
		c.Close()
	}
}

// The client answers a KeyUpdate with its own KeyUpdate, before the data of the next Write. Both
// sides then use new keys (section 4.6.3).
func TestKeyUpdateIsAnswered(t *testing.T) {
	t.Parallel()
	c, _, f := connectForged(t)
	f.keyUpdate(t)
	f.send(t, applicationRecord, []byte("to the client"))
	expectRead(t, c, "to the client")
	for i, data := range []string{"with new keys", "again"} {
		if _, err := c.Write(bounded(t), []byte(data)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			f.receive(t, handshakeRecord, []byte{24, 0, 0, 1, 0})
			f.peers.update(t)
		}
		f.receive(t, applicationRecord, []byte(data))
	}
}

// largeTicket is a NewSessionTicket that fills a record.
func largeTicket() []byte {
	const size = 16_000
	message := newSessionTicket()
	body := append(message[4:4+10:4+10], byte(size>>8), byte(size&0xff))
	body = append(body, make([]byte, size+2)...)
	return append([]byte{4, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

// If a message has emptied OpenSSL's buffer, SSL_read returns with SSL_ERROR_WANT_READ, even if the
// socket has the next message (SSL_CTX_set_mode(3)). A Read must then not wait for the socket.
func TestReadTakesAnyNumberOfMessagesWithoutDataBetween(t *testing.T) {
	t.Parallel()
	c, _, f := connectForged(t)
	sent := make(chan error, 1)
	go func() {
		var err error
		for range 1_000 {
			err = errors.Join(err, f.trySend(handshakeRecord, largeTicket()))
		}
		sent <- errors.Join(err, f.trySend(applicationRecord, []byte("data")))
	}()
	expectRead(t, c, "data")
	c.Close() // ends the goroutine, even if the Read has failed
	if err := <-sent; err != nil && !t.Failed() {
		t.Error(err)
	}
}

func TestReadEndsWithItsContextWhileMessagesComeWithoutEnd(t *testing.T) {
	t.Parallel()
	c, _, f := connectForged(t)
	sent := make(chan struct{})
	defer func() { c.Close(); <-sent }()
	ctx, cancel := context.WithCancel(bounded(t))
	go func() {
		defer close(sent)
		// until we close
		for n := 0; f.trySend(handshakeRecord, largeTicket()) == nil; n++ {
			if n == 1_000 {
				cancel()
			}
		}
	}()
	if _, err := c.Read(ctx, make([]byte, 1)); err != context.Canceled {
		t.Errorf("Read: %v, want context.Canceled", err)
	}
}
