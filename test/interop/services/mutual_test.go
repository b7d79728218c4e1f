package services

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// These servers require certificates of their clients. In TLS 1.3 a client's handshake ends before
// the server checks the certificate. So if the server refuses our client, the first Read fails.

// The map alerts has the texts of our error for each bad certificate: the alert by which a server
// refuses a client (RFC 8446 section 6.2), and the cause if our side knows it.
var alerts = map[string][]string{
	"an expired one":    {"the peer sent the alert certificate_expired (45)"},
	"one of another CA": {"the peer sent the alert unknown_ca (48)"},
	"none": {"the peer sent the alert certificate_required (116)", "the server asked for a " +
		"client certificate, and none is set"},
}

// eachClient connects a client with each certificate, and calls talk after its handshake.
func (w *world) eachClient(t *testing.T, port int,
	talk func(m mine, h client.Handle, which string)) {
	t.Helper()
	d := testd.Start(t)
	for which, cert := range w.clients {
		t.Run(which, func(t *testing.T) {
			m := newMine(t, d)
			h := m.dial(w, port, cert)
			testkit.Must(t, m.Handshake(m.ctx, h))
			if v := m.fact(h, "version"); v != "TLSv1.3" {
				t.Errorf("the version is %s, want TLSv1.3", v)
			}
			talk(m, h, which)
			m.CloseConn(m.ctx, h) // fails if the server has cut the connection
		})
	}
}

// refused returns a function talk for eachClient. The server must refuse a client with a bad
// certificate by an alert, and must answer the question of a client with a good certificate.
func refused(question, answer string) func(mine, client.Handle, string) {
	return func(m mine, h client.Handle, which string) {
		m.t.Helper()
		if says := alerts[which]; says != nil {
			_, err := m.Read(m.ctx, h, 1)
			failed(m.t, err, client.KindIO, says...)
			return
		}
		m.say(h, question)
		m.hear(h, func(got string) bool { return got == answer })
	}
}

// redis serves our client if its certificate is good, and refuses it otherwise.
func TestRedisKnowsItsClients(t *testing.T) {
	t.Parallel()
	redis := need(t, "redis-server")
	w, s, port := newServer(t)
	cert, key, ca := s.identity(w)
	s.serve(port, syscall.SIGTERM, redis, "--bind", "127.0.0.1", "--port", "0", "--tls-port",
		strconv.Itoa(port), "--save", "", "--dir", s.dir,
		"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca,
		"--tls-auth-clients", "yes")
	w.eachClient(t, port, refused("SET name value\r\nGET name\r\n", "+OK\r\n$5\r\nvalue\r\n"))
}

// mosquitto serves our client if its certificate is good, and takes the user's name from the
// certificate. Otherwise it refuses the client.
func TestMosquittoKnowsItsClients(t *testing.T) {
	t.Parallel()
	mosquitto := need(t, "mosquitto")
	w, s, port := newServer(t)
	cert, key, ca := s.identity(w)
	conf := s.file("mosquitto.conf", fmt.Sprintf(`listener %d 127.0.0.1
cafile %s
certfile %s
keyfile %s
require_certificate true
use_identity_as_username true
persistence false
log_dest stderr
`, port, ca, cert, key))
	s.serve(port, syscall.SIGTERM, mosquitto, "-c", conf)
	// CONNECT of MQTT 3.1.1 with a clean session and the client id "x". The answer is CONNACK
	// without an error (sections 3.1 and 3.2).
	w.eachClient(t, port, refused("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x",
		"\x20\x02\x00\x00"))
	if !strings.Contains(s.said(), "u'"+clientName+"'") {
		t.Error("mosquitto's log lacks the name in the client's certificate")
	}
}

// nginx does the handshake with every client. Its answer over HTTP names the certificate of the
// client, or says what is wrong with it. The last part checks which protocol ALPN chooses.
func TestNginxKnowsItsClients(t *testing.T) {
	t.Parallel()
	nginx := need(t, "nginx")
	w, s, port := newServer(t)
	cert, key, ca := s.identity(w)
	conf := s.file("nginx.conf", fmt.Sprintf(`daemon off;
master_process off;
pid pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c;
	uwsgi_temp_path d; scgi_temp_path e;
	server {
		listen 127.0.0.1:%d ssl http2;
		ssl_certificate %s;
		ssl_certificate_key %s;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_client_certificate %s;
		ssl_verify_client on;
		location / { return 200 "$ssl_client_s_dn $ssl_protocol"; }
	}
}
`, port, cert, key, ca))
	s.serve(port, syscall.SIGTERM, nginx, "-p", s.dir, "-c", conf)
	w.eachClient(t, port, func(m mine, h client.Handle, which string) {
		m.say(h, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
		want := map[string]string{
			"a good one":        "CN=" + clientName + " TLSv1.3",
			"an expired one":    "400 The SSL certificate error",
			"one of another CA": "400 The SSL certificate error",
			"none":              "400 No required SSL certificate was sent",
		}[which]
		m.hear(h, func(got string) bool { return strings.Contains(got, want) })
	})
	for offered, agreed := range map[string]string{"h2,http/1.1": "h2",
		"http/1.1": "http/1.1", "": ""} {
		m := newMine(t, testd.Start(t))
		h := m.dial(w, port, nil, "alpn", offered)
		testkit.Must(t, m.Handshake(m.ctx, h))
		if got := m.fact(h, "alpn"); got != agreed {
			t.Errorf("our client offers %q, and ALPN chooses %q, want %q", offered,
				got, agreed)
		}
	}
}
