package main

import (
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsd/internal/kind"
	"tlsd/session"
)

// observed returns an observer of session 7, and the log to which it writes. The observer's clock
// begins at now, and only the test moves it.
func observed(now time.Time) (*observerOfTest, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	o := &observerOfTest{newObserver(zap.New(core), 7), now}
	o.now = func() time.Time { return o.clock }
	return o, logs
}

type observerOfTest struct {
	*sessionObserver
	clock time.Time
}

// A session cannot fill the log. Beyond observerBurst lines at once, and observerRate lines a
// second, lines about handshakes are dropped. The next line that is written has the number of the
// dropped lines. Long texts of peers are cut, and their control characters are escaped.
func TestLinesOfASessionAreBounded(t *testing.T) {
	t.Parallel()
	o, logs := observed(time.Unix(1e9, 0))
	scan := session.Handshake{Server: true, Peer: "192.0.2.1:1", Skipped: true,
		Failure: &session.Error{Kind: kind.Handshake,
			Why: "no TLS\n\x1b[31m" + strings.Repeat("x", 9000)}}
	for range 1000 {
		o.HandshakeDone(scan)
	}
	if n := logs.Len(); n != observerBurst {
		t.Fatalf("1000 failed handshakes at once make %d lines, want %d", n, observerBurst)
	}
	// Lines about certificates have a limit of their own, so that handshakes do not use it up.
	o.Reloaded("/cert", "/key", errors.New("no PEM"))
	if n := logs.FilterMessage("certificate not reloaded").Len(); n != 1 {
		t.Errorf("after 1000 handshakes, %d lines name the certificate; want 1", n)
	}
	o.clock = o.clock.Add(time.Second)
	for range 1000 {
		o.HandshakeDone(scan)
	}
	all := logs.TakeAll()
	if len(all) != observerBurst+1+observerRate {
		t.Fatalf("a second later there are %d lines, want %d", len(all),
			observerBurst+1+observerRate)
	}
	line := all[observerBurst+1]
	fields := line.ContextMap()
	failure, isText := fields["failure"].(string)
	if !isText || line.Message != "handshake" || fields["session"] != uint64(7) ||
		fields["role"] != "server" || fields["peer"] != "192.0.2.1:1" ||
		fields["skipped"] != true || fields["kind"] != "handshake" ||
		fields["missed"] != uint64(1000-observerBurst) ||
		len(failure) > longestText+10 || strings.ContainsAny(failure, "\n\x1b") {
		t.Errorf("the line after the dropped lines is %q with %v; want the handshake with "+
			"192.0.2.1:1, the number of dropped lines, and a short failure without "+
			"control characters", line.Message, fields)
	}
	o.Over(session.Totals{Handles: 1, Received: 2, Sent: 3})
	if last := logs.TakeAll(); len(last) != 1 ||
		last[0].ContextMap()["missed"] != uint64(1000-observerRate) {
		t.Errorf("at its end, the session logs %v; want one line with the number of "+
			"dropped lines", last)
	}
	if o.totals == nil || o.totals.Handles != 1 || o.totals.Received != 2 ||
		o.totals.Sent != 3 {
		t.Errorf("the totals are %+v; want 1 handle, 2 and 3 bytes", o.totals)
	}
}

// If a certificate has expired or will soon, or if other users can read its key, its log line is a
// warning.
func TestCertificatesThatNeedCareAreWarnings(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		cert session.Certificate
		says string // "": no warning
	}{
		{"good", session.Certificate{NotAfter: now.Add(15 * day)}, ""},
		{"not readable by this parser", session.Certificate{}, ""},
		{"soon", session.Certificate{NotAfter: now.Add(13 * day)}, "less than 14 days"},
		{"expired", session.Certificate{NotAfter: now.Add(-day)}, "has expired"},
		{"open key", session.Certificate{NotAfter: now.Add(15 * day), KeyOpen: true,
			KeyFile: "/k"}, "can read the key /k"},
	} {
		o, logs := observed(now)
		c.cert.CertFile, c.cert.Serial = "/c", big.NewInt(0x1f)
		o.Loaded(c.cert)
		lines := logs.TakeAll()
		if len(lines) != 1 {
			t.Errorf("%s: the certificate makes %d lines, want 1", c.name, len(lines))
			continue
		}
		line := lines[0]
		fields := line.ContextMap()
		warning, _ := fields["warning"].(string)
		if line.Message != "certificate" || fields["path"] != "/c" ||
			fields["serial"] != "1f" ||
			(line.Level == zap.WarnLevel) != (c.says != "") ||
			!strings.Contains(warning, c.says) || (warning == "") != (c.says == "") {
			t.Errorf("%s: the line is %v %s %v; want the warning %q", c.name,
				line.Level, line.Message, fields, c.says)
		}
	}
}
