package services

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A connection to a mail server begins in plain text. After the command STARTTLS it changes to TLS
// (RFC 3207, RFC 9051 section 6.2.1).

// lastLine says whether the text ends with the last line of an SMTP reply. In this line no hyphen
// follows the code (RFC 5321 section 4.2.1).
var lastLine = regexp.MustCompile(`(?m)^[0-9]{3} .*\r\n\z`).MatchString

// Our client sends STARTTLS to postfix in plain text, does the handshake, and begins a mail over
// TLS. Without STARTTLS postfix refuses the mail.
func TestPostfixChangesToTLS(t *testing.T) {
	t.Parallel()
	postfix := need(t, "postfix")
	needRoot(t, "postfix starts as root")
	w := newWorld(t)
	s := newService(t, "root") // postfix starts as root, and then changes to the user postfix
	cert, key, _ := s.identity(w)
	port := testkit.Port(t)
	mail := newService(t, "postfix")
	s.file("main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %s
data_directory = %s
inet_interfaces = 127.0.0.1
myhostname = localhost
mydestination = localhost
maillog_file = /dev/stdout
smtpd_tls_chain_files = %s, %s
smtpd_tls_security_level = encrypt
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = reject
alias_maps =
local_recipient_maps =
`, s.folder("queue"), mail.dir, key, cert))
	testkit.Must(t, os.Chmod(s.path("queue"), 0o755))
	s.file("master.cf", fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
`, port))
	s.serve(port, syscall.SIGTERM, postfix, "-c", s.dir, "start-fg")
	// At the end of the test the script postfix ends, but postfix's master process goes on.
	t.Cleanup(func() {
		text, err := os.ReadFile(s.path("queue/pid/master.pid"))
		testkit.Must(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		testkit.Must(t, err)
		testkit.Must(t, syscall.Kill(pid, syscall.SIGTERM))
		testkit.Until(t, "postfix's master ends", func() bool {
			state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return len(state) == 0 || strings.Contains(string(state), ") Z ")
		})
	})

	m := newMine(t, testd.Start(t))
	h := m.dial(w, port, nil)
	reply := func(want, got string) {
		t.Helper()
		if !strings.HasPrefix(got, want) {
			t.Fatalf("the server says %q, want %q", got, want)
		}
	}
	reply("220 localhost ESMTP Postfix", m.hearPlain(h, lastLine))
	m.sayPlain(h, "EHLO client.test\r\n")
	if got := m.hearPlain(h, lastLine); !strings.Contains(got, "STARTTLS\r\n") {
		t.Errorf("the server does not offer STARTTLS: %q", got)
	}
	m.sayPlain(h, "MAIL FROM:<a@client.test>\r\n")
	reply("530 5.7.0 Must issue a STARTTLS command first", m.hearPlain(h, lastLine))
	m.sayPlain(h, "STARTTLS\r\n")
	reply("220 2.0.0 Ready to start TLS", m.hearPlain(h, lastLine))
	testkit.Must(t, m.Handshake(m.ctx, h))
	if got := m.fact(h, "version") + " " + m.fact(h, "verified"); got != "TLSv1.3 1" {
		t.Errorf("version and verified are %q, want TLSv1.3 and 1", got)
	}
	m.say(h, "EHLO client.test\r\n")
	if got := m.hear(h, lastLine); !strings.HasPrefix(got, "250-") ||
		strings.Contains(got, "STARTTLS") {
		t.Errorf("after EHLO over TLS the server says %q; want 250- without STARTTLS", got)
	}
	m.say(h, "MAIL FROM:<a@client.test>\r\n")
	reply("250 ", m.hear(h, lastLine))
	m.say(h, "QUIT\r\n")
	reply("221 ", m.hear(h, lastLine))
	testkit.Must(t, m.CloseConn(m.ctx, h))
}

// dovecotConf returns the configuration for a version of Dovecot. Since version 2.4 some settings
// have other names, and the first setting must be the version.
func dovecotConf(version, dir, mail, cert, key string, port int) string {
	differs := `dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
ssl_server_cert_file = %s
ssl_server_key_file = %s
mail_driver = maildir
mail_path = ~/mail
passdb static {
  password = secret
}
userdb static {
}
`
	if strings.HasPrefix(version, "2.3.") {
		differs = `ssl_cert = <%s
ssl_key = <%s
mail_location = maildir:~/mail
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
}
`
	}
	return fmt.Sprintf(differs, cert, key) + fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = /dev/stderr
protocols = imap
listen = 127.0.0.1
ssl = required
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
mail_uid = nobody
mail_gid = nogroup
mail_home = %[2]s/%%{user}
first_valid_uid = 1
service imap-login {
  inet_listener imap {
    port = %[3]d
  }
  inet_listener imaps {
    port = 0
  }
}
`, dir, mail, port)
}

// Our client sends STARTTLS to dovecot in plain text, does the handshake, and logs in over TLS.
func TestDovecotChangesToTLS(t *testing.T) {
	t.Parallel()
	dovecot := need(t, "dovecot")
	needRoot(t, "dovecot changes users")
	w := newWorld(t)
	s, mail := newService(t, "root"), newService(t, "nobody")
	cert, key, _ := s.identity(w)
	port := testkit.Port(t)
	version, err := exec.Command(dovecot, "--version").Output()
	testkit.Must(t, err)
	conf := s.file("dovecot.conf",
		dovecotConf(string(version), s.dir, mail.dir, cert, key, port))
	s.serve(port, syscall.SIGTERM, dovecot, "-F", "-c", conf)

	m := newMine(t, testd.Start(t))
	h := m.dial(w, port, nil)
	tagged := func(tag string) func(string) bool {
		return regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(tag) + ` .*\r\n\z`).MatchString
	}
	if got := m.hearPlain(h, tagged("*")); !strings.Contains(got, "STARTTLS") {
		t.Errorf("the server does not offer STARTTLS: %q", got)
	}
	m.sayPlain(h, "b STARTTLS\r\n")
	m.hearPlain(h, tagged("b"))
	testkit.Must(t, m.Handshake(m.ctx, h))
	for _, c := range []struct{ tag, command, says string }{
		{"c", "LOGIN user secret", "c OK"},
		{"d", "SELECT INBOX", "* 0 EXISTS"},
		{"e", "LOGOUT", "e OK"},
	} {
		m.say(h, c.tag+" "+c.command+"\r\n")
		if got := m.hear(h, tagged(c.tag)); !strings.Contains(got, c.says) {
			t.Errorf("to %s the server says %q, want %q", c.command, got, c.says)
		}
	}
	testkit.Must(t, m.CloseConn(m.ctx, h))
}
