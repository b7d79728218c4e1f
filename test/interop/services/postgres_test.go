package services

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// A client of PostgreSQL asks for TLS in plain text: it sends a message of eight bytes, and the
// server answers with one byte (PostgreSQL's manual, "SSL Session Encryption"). Since version 17 a
// client may begin with TLS at once, if it offers the protocol postgresql by ALPN.

const superuser, secret = "postgres", "a password of this test"

const installed = "/usr/lib/postgresql/*/bin"

// postgresRoot returns the root folder of a system that has PostgreSQL 17 or newer. If this machine
// has it, the folder is "". If not, the folder is the one that scripts/postgresql.sh has made.
// Without this folder the test is skipped.
func postgresRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(need(t, "postgres", installed), "--version").Output()
	testkit.Must(t, err)
	words := strings.Fields(string(out)) // postgres (PostgreSQL) 15.6 …
	major, _, _ := strings.Cut(words[2], ".")
	version, err := strconv.Atoi(major)
	testkit.Must(t, err)
	if version >= 17 {
		return ""
	}
	root := os.Getenv("TLSD_TEST_POSTGRESQL")
	if why, none := strings.CutPrefix(root, "-"); none || root == "" {
		t.Skipf("PostgreSQL %d cannot begin with TLS, and make services has found no "+
			"newer one: %s", version, why)
	}
	return root
}

// startPostgres starts a server that accepts connections with TLS only. The user somebody logs in
// by a certificate, other users by the password. root is what postgresRoot returns, or "".
func startPostgres(t *testing.T, w *world, root string) (port int) {
	t.Helper()
	bin := filepath.Dir(need(t, "postgres", filepath.Join(root, installed)))
	bin = strings.TrimPrefix(bin, root) // the path inside root
	initdb, postgres := bin+"/initdb", bin+"/postgres"
	s := newService(t, "nobody")
	s.within(root)
	cert, key, ca := s.identity(w)
	data := s.path("data")
	s.run(initdb, "--pgdata="+data, "--username="+superuser,
		"--pwfile="+s.file("password", secret), "--auth=scram-sha-256", "--no-sync",
		"--locale=C", "--encoding=UTF8")
	s.file("data/pg_hba.conf", "hostssl all "+clientName+" 127.0.0.1/32 cert\nhostssl all "+
		"all 127.0.0.1/32 scram-sha-256\n")
	port = testkit.Port(t)
	args := []string{"-D", data, "-p", strconv.Itoa(port)}
	for _, setting := range []string{"listen_addresses=127.0.0.1", "unix_socket_directories=",
		"fsync=off", "shared_buffers=1MB", "max_connections=10",
		"ssl=on", "ssl_cert_file=" + cert, "ssl_key_file=" + key, "ssl_ca_file=" + ca} {
		args = append(args, "-c", setting)
	}
	s.serve(port, syscall.SIGINT, postgres, args...) // SIGINT does not wait for clients
	// The server listens before it is ready, and refuses clients until then.
	testkit.Until(t, "PostgreSQL is ready", func() bool {
		return strings.Contains(s.said(), "ready to accept connections")
	})
	return port
}

// Our client asks PostgreSQL for TLS in plain text, does the handshake, and logs in over TLS, by
// password and by certificate. The fact sha256 is the right channel binding for the login by
// password. With a wrong binding or a bad certificate the server refuses the client.
func TestPostgresChangesToTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := startPostgres(t, w, "")
	d := testd.Start(t)
	upgraded := func(t *testing.T, which string) session {
		t.Helper()
		m := newMine(t, d)
		h := m.dial(w, port, w.clients[which])
		m.sayPlain(h, "\x00\x00\x00\x08\x04\xd2\x16\x2f") // SSLRequest
		if got := m.hearPlain(h, func(got string) bool { return got != "" }); got != "S" {
			t.Fatalf("the server answers %q, want S", got)
		}
		testkit.Must(t, m.Handshake(m.ctx, h))
		return session{m, h}
	}
	t.Run("by password, bound to the channel", func(t *testing.T) {
		s := upgraded(t, "none")
		s.startup(superuser)
		if why := s.authenticate(s.endPoint()); why != "" {
			t.Fatalf("the server refuses the login: %s", why)
		}
		if got := s.query("select version || ' ' || bits from pg_stat_ssl where pid = " +
			"pg_backend_pid()"); got != "TLSv1.3 256" {
			t.Errorf("the server reports %q, want TLSv1.3 256", got)
		}
		s.query("create role " + clientName + " login")
		testkit.Must(t, s.CloseConn(s.ctx, s.h))
	})
	t.Run("bound to another channel", func(t *testing.T) {
		s := upgraded(t, "none")
		s.startup(superuser)
		other := sha256.Sum256(w.ca.Cert.Raw)
		if why := s.authenticate(other[:]); !strings.Contains(why, "channel binding "+
			"check failed") {
			t.Errorf("with a wrong channel binding the server says %q, want \"channel "+
				"binding check failed\"", why)
		}
	})
	t.Run("by certificate", func(t *testing.T) {
		s := upgraded(t, "a good one")
		s.startup(clientName)
		s.ready()
		if got := s.query(
			"select client_dn from pg_stat_ssl where pid = pg_backend_pid()"); got !=
			"/CN="+clientName {
			t.Errorf("the server sees %q, want the client's certificate", got)
		}
	})
	for _, which := range []string{"an expired one", "one of another CA"} {
		t.Run("by certificate, "+which, func(t *testing.T) {
			s := upgraded(t, which)
			_, err := s.Read(s.ctx, s.h, 1)
			failed(t, err, client.KindIO, alerts[which]...)
		})
	}
}

// Our client begins with TLS at once and offers the protocol postgresql, and PostgreSQL serves it.
// A client that offers another protocol is refused.
func TestPostgresBeginsWithTLS(t *testing.T) {
	t.Parallel()
	root := postgresRoot(t)
	w := newWorld(t)
	port := startPostgres(t, w, root)
	m := newMine(t, testd.Start(t))
	h := m.dial(w, port, nil, "alpn", "postgresql")
	testkit.Must(t, m.Handshake(m.ctx, h))
	if got := m.fact(h, "alpn"); got != "postgresql" {
		t.Errorf("ALPN has chosen %q, want postgresql", got)
	}
	s := session{m, h}
	s.startup(superuser)
	if why := s.authenticate(s.endPoint()); why != "" {
		t.Fatalf("the server refuses the login: %s", why)
	}
	got := s.query("select ssl, current_setting('server_version_num')::int >= 170000 " +
		"from pg_stat_ssl where pid = pg_backend_pid()")
	if got != "t t" {
		t.Errorf("TLS and version 17 or newer: the server says %q, want t t", got)
	}
	testkit.Must(t, s.CloseConn(s.ctx, s.h))

	h = m.dial(w, port, nil, "alpn", "h2") // a client of another protocol
	failed(t, m.Handshake(m.ctx, h), client.KindHandshake, "no_application_protocol")
}

// A session speaks the part of PostgreSQL's protocol, version 3, that is needed here.
type session struct {
	mine
	h client.Handle
}

// endPoint returns the channel binding tls-server-end-point (RFC 5929 section 4). The binding is a
// hash of the server's certificate. The certificate is signed with SHA-256, so its hash is SHA-256,
// too.
func (s session) endPoint() []byte {
	sum, err := hex.DecodeString(s.fact(s.h, "sha256"))
	testkit.Must(s.t, err)
	return sum
}

func (s session) send(kind string, body []byte) {
	s.t.Helper()
	s.say(s.h, kind+string(binary.BigEndian.AppendUint32(nil,
		uint32(4+len(body))))+string(body))
}

// receive returns the next message.
func (s session) receive() (kind byte, body []byte) {
	s.t.Helper()
	take := func(n int) []byte {
		var got []byte
		for len(got) < n {
			data, err := s.Read(s.ctx, s.h, n-len(got))
			testkit.Must(s.t, err)
			if len(data) == 0 {
				s.t.Fatal("the server has ended the connection")
			}
			got = append(got, data...)
		}
		return got
	}
	head := take(5)
	return head[0], take(int(binary.BigEndian.Uint32(head[1:])) - 4)
}

func (s session) startup(user string) {
	s.t.Helper()
	s.send("", append(binary.BigEndian.AppendUint32(nil, 3<<16),
		"user\x00"+user+"\x00database\x00postgres\x00\x00"...))
}

// ready reads until the server waits for a query. It returns the fields of all rows that it has
// read.
func (s session) ready() (fields []string) {
	s.t.Helper()
	for {
		switch kind, body := s.receive(); kind {
		case 'Z': // ReadyForQuery
			return fields
		case 'E': // ErrorResponse
			s.t.Fatalf("the server answers with the error %q", body)
		case 'D': // DataRow
			for body = body[2:]; len(body) > 0; {
				n := 4 + binary.BigEndian.Uint32(body)
				fields = append(fields, string(body[4:n]))
				body = body[n:]
			}
		}
	}
}

func (s session) query(sql string) string {
	s.t.Helper()
	s.send("Q", append([]byte(sql), 0))
	return strings.Join(s.ready(), " ")
}

// authenticate logs in by SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), with the password and a channel
// binding. If the server refuses the login, authenticate returns the server's reason.
func (s session) authenticate(binding []byte) (why string) {
	s.t.Helper()
	const mechanism, gs2, nonce = "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", "cnonce"
	kind, offer := s.receive()
	if kind != 'R' || !bytes.Contains(offer, []byte(mechanism+"\x00")) {
		s.t.Fatalf("the server offers %c %q, want R and the mechanism SCRAM-SHA-256-PLUS",
			kind, offer)
	}
	bare := "n=,r=" + nonce
	first := gs2 + bare
	s.send("p", append(append([]byte(mechanism+"\x00"),
		binary.BigEndian.AppendUint32(nil, uint32(len(first)))...), first...))
	kind, body := s.receive()
	if kind != 'R' {
		return string(body)
	}
	challenge := string(body[4:])
	var theirs, salt string
	var rounds int
	for part := range strings.SplitSeq(challenge, ",") {
		switch name, value, _ := strings.Cut(part, "="); name {
		case "r":
			theirs = value
		case "s":
			salt = value
		case "i":
			rounds, _ = strconv.Atoi(value)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(salt)
	testkit.Must(s.t, err)
	salted, err := pbkdf2.Key(sha256.New, secret, raw, rounds, sha256.Size)
	testkit.Must(s.t, err)
	clientKey := sign(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	last := "c=" + base64.StdEncoding.EncodeToString(append([]byte(gs2), binding...)) +
		",r=" + theirs
	all := bare + "," + challenge + "," + last
	proof := sign(stored[:], all)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	s.send("p", []byte(last+",p="+base64.StdEncoding.EncodeToString(proof)))
	kind, body = s.receive()
	if kind != 'R' {
		return string(body)
	}
	if want := "v=" + base64.StdEncoding.EncodeToString(sign(sign(salted, "Server Key"),
		all)); string(body[4:]) != want {
		return fmt.Sprintf("the server does not know the password: it says %q, want %q",
			body[4:], want)
	}
	s.ready()
	return ""
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
