package main

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
	"tlsd/internal/plain"
	"tlsd/session"
)

// This file logs the events of a session in a worker: handshakes, and certificates that were loaded
// or reloaded. Each of these two groups may write observerBurst lines at once, and then
// observerRate lines a second. So a port scan, or a script in a loop, does not fill the log. The
// next line of the group has the number of dropped lines. Texts of peers and scripts are cut to
// longestText bytes, and their hidden characters are escaped.
const (
	observerBurst = 50
	observerRate  = 5
	longestText   = 512 // bytes
	// soonExpired: the log warns of a certificate that expires within this time.
	soonExpired = 14 * 24 * time.Hour
)

// sessionObserver logs the events of one session. It is safe for concurrent use.
type sessionObserver struct {
	log *zap.Logger // with the session's number
	// Strangers can cause handshakes without end. Certificates have a limiter of their own, so
	// that lines about handshakes do not push out lines about certificates.
	handshakes, certificates *audit.Limiter

	now    func() time.Time
	totals *handoff.Totals // set by Over
}

func newObserver(log *zap.Logger, number uint64) *sessionObserver {
	return &sessionObserver{
		log:          log.With(zap.Uint64("session", number)),
		handshakes:   audit.NewLimiter(observerBurst, observerRate),
		certificates: audit.NewLimiter(observerBurst, observerRate),
		now:          time.Now,
	}
}

// line writes an entry to the log, unless the log level or the limiter forbids the entry. If no
// entry is written, makeFields is not called.
func (o *sessionObserver) line(limiter *audit.Limiter, level zapcore.Level, text string,
	makeFields func() []zap.Field) {
	entry := o.log.Check(level, text)
	if entry == nil {
		return
	}
	missed, ok := limiter.Take(o.now(), 0)
	if !ok {
		return
	}
	list := makeFields()
	if missed > 0 {
		list = append(list, zap.Uint64("missed", missed))
	}
	entry.Write(list...)
}

func (o *sessionObserver) HandshakeDone(h session.Handshake) {
	o.line(o.handshakes, zap.InfoLevel, "handshake", func() []zap.Field {
		role := "client"
		if h.Server {
			role = "server"
		}
		list := []zap.Field{
			zap.String("role", role),
			zap.String("peer", plain.Text(h.Peer, longestText)),
			zap.Float64("milliseconds", float64(h.Took.Microseconds())/1000),
		}
		if h.Failure != nil {
			list = append(list, zap.String("kind", string(h.Failure.Kind)),
				zap.String("failure", plain.Text(h.Failure.Why, longestText)))
			if h.Skipped {
				list = append(list, zap.Bool("skipped", true))
			}
			return list
		}
		version, cipher, subject, serial, resumed := h.Details()
		return append(list, zap.String("version", version), zap.String("cipher", cipher),
			zap.String("subject", plain.Text(subject, longestText)),
			zap.String("serial", serial), zap.Bool("resumed", resumed))
	})
}

func (o *sessionObserver) Loaded(c session.Certificate) {
	level, warning := zap.InfoLevel, o.warning(c)
	if warning != "" {
		level = zap.WarnLevel
	}
	o.line(o.certificates, level, "certificate", func() []zap.Field {
		list := []zap.Field{zap.String("path", plain.Text(c.CertFile, longestText)),
			zap.String("serial", serialOf(c))}
		if !c.NotAfter.IsZero() {
			list = append(list, zap.Time("not-after", c.NotAfter.UTC()))
		}
		if warning != "" {
			list = append(list, zap.String("warning", plain.Text(warning, longestText)))
		}
		return list
	})
}

// serialOf is the serial number of a certificate in hexadecimal, or "".
func serialOf(c session.Certificate) string {
	if c.Serial == nil {
		return ""
	}
	return c.Serial.Text(16)
}

// warning describes a problem of a certificate that was loaded. It returns "" if there is none.
func (o *sessionObserver) warning(c session.Certificate) string {
	switch left := c.NotAfter.Sub(o.now()); {
	case c.KeyOpen:
		return "every user of this machine can read the key " + c.KeyFile +
			"; remove their read permission (chmod o-r)"
	case c.NotAfter.IsZero():
		return ""
	case left <= 0:
		return "it has expired; peers refuse it"
	case left < soonExpired:
		return "it expires in less than 14 days"
	}
	return ""
}

func (o *sessionObserver) Reloaded(certFile, keyFile string, err error) {
	if keyFile == "" {
		o.reloadedCA(certFile, err)
		return
	}
	if err == nil { // Loaded has logged the new certificate
		return
	}
	o.line(o.certificates, zap.WarnLevel, "certificate not reloaded", func() []zap.Field {
		return []zap.Field{
			zap.String("path", plain.Text(certFile, longestText)),
			zap.String("key", plain.Text(keyFile, longestText)),
			zap.String("why", plain.Text(err.Error(), longestText)),
		}
	})
}

// reloadedCA logs that the file of the option client-ca was read again, or that this has failed.
func (o *sessionObserver) reloadedCA(path string, err error) {
	level, text := zap.InfoLevel, "client CA reloaded"
	fields := []zap.Field{zap.String("path", plain.Text(path, longestText))}
	if err != nil {
		level, text = zap.WarnLevel, "client CA not reloaded"
		fields = append(fields, zap.String("why", plain.Text(err.Error(), longestText)))
	}
	o.line(o.certificates, level, text, func() []zap.Field { return fields })
}

func (o *sessionObserver) Over(t session.Totals) {
	if n := o.handshakes.Missed() + o.certificates.Missed(); n > 0 {
		o.log.Info("handshakes and certificates that were not logged",
			zap.Uint64("missed", n))
	}
	o.totals = &handoff.Totals{Handles: t.Handles, Received: t.Received, Sent: t.Sent}
}
