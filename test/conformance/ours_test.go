package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsd/internal/ours"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// The type us is our side, at one of its levels. Each connection and each listener has a session of
// its own.
type us struct{ ours.Level }

// level is the only level that this run is about: "in process", "daemon" or "plugin". If it is
// empty, the run is about all levels.
var level = os.Getenv("TLSD_TEST_LEVEL")

const daemonLevel = "daemon"

// levels returns the levels of this run. bounds sets their timeouts for connect, handshake and
// accept-handshake.
func levels(t *testing.T, bounds session.Timeouts) []us {
	t.Helper()
	var flags []string
	for name, bound := range map[string]time.Duration{"connect": bounds.Connect,
		"handshake": bounds.Handshake, "accept-handshake": bounds.AcceptHandshake} {
		if bound != 0 {
			flags = append(flags, fmt.Sprintf("--%s-timeout=%v", name, bound))
		}
	}
	inProcess := us{ours.InProcess{Timeouts: bounds}}
	if level == inProcess.String() {
		return []us{inProcess}
	}
	d := daemon(t, flags...)
	all := []us{inProcess, {ours.Daemon{D: d}}, {ours.Plugin{D: d}}}
	all = slices.DeleteFunc(all, func(l us) bool { return level != "" && l.String() != level })
	if len(all) == 0 {
		t.Fatalf("TLSD_TEST_LEVEL: there is no level %q", level)
	}
	return all
}

// atEachLevel runs body with our side at each level, at all levels at the same time.
func atEachLevel(t *testing.T, bounds session.Timeouts, body func(t *testing.T, l us)) {
	t.Helper()
	for _, l := range levels(t, bounds) {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			body(t, l)
		})
	}
}

// needsLevel skips a test if this run is only for one level, and that level lacks the ability.
func needsLevel(t *testing.T, a ability) {
	t.Helper()
	for _, l := range []us{{ours.InProcess{}}, {ours.Daemon{}}, {ours.Plugin{}}} {
		if why := cannot(l, asBoth, a); why != "" && level == l.String() {
			t.Skip(why)
		}
	}
}

// strict returns our side. At the plugin level it turns on the plugin's strict mode, in which a
// Write returns only when its data is sent.
func (e us) strict() us {
	if p, ok := e.Level.(ours.Plugin); ok {
		p.StrictWrites = true
		return us{p}
	}
	return e
}

// open opens a session that trusts ca, or the system's store if ca is empty.
func (e us) open(t *testing.T, ca string) ours.Session {
	t.Helper()
	s := e.Open(t)
	if ca != "" {
		testkit.Must(t, s.SetCaBundle(testkit.Bounded(t), ca))
	}
	return s
}

func (e us) dial(t *testing.T, to address, o dialOptions) (stream, error) {
	e.takesVersion(t, o.only)
	s, err := ours.Dial(testkit.Bounded(t), t, e, to.host, to.port,
		ours.Trust{CA: o.ca, Insecure: o.insecure})
	if err != nil {
		return nil, err
	}
	return ourStream{s}, nil
}

func (e us) listen(t *testing.T, o listenOptions) listener {
	t.Helper()
	return e.server(t, o)
}

func (e us) server(t *testing.T, o listenOptions) ourListener {
	t.Helper()
	e.takesVersion(t, o.only)
	return ourListener{ours.Listen(testkit.Bounded(t), t, e, o.cert.CertFile, o.cert.KeyFile)}
}

func (us) takesVersion(t *testing.T, only uint16) {
	if only != 0 {
		t.Error("our side cannot offer one version only: the needs of this test must " +
			"have the ability oneVersion")
	}
}

type ourListener struct{ *ours.Listener }

func (l ourListener) port() int { return l.Port }

func (l ourListener) accept(*testing.T) (stream, error) {
	s, err := l.Accept()
	if err != nil {
		return nil, err
	}
	return ourStream{s}, nil
}

type ourStream struct{ *ours.Stream }

func (s ourStream) peerSubject() string { return s.PeerSubject() }
func (s ourStream) version() string     { return s.Version() }
func (s ourStream) closeWrite() error   { return s.S.Shutdown(s.Ctx, s.H) }
func (s ourStream) cut()                { s.TB.Error("we cannot cut a connection") }
func (s ourStream) reset()              { s.TB.Error("we cannot reset a connection") }

// isOurs says whether an endpoint is our side.
func isOurs(e endpoint) bool {
	_, ok := e.(us)
	return ok
}

// failure returns the error of our side that is in err, or nil if err has no such error.
func failure(err error) *client.Error { return ours.Failure(err) }

// isKind says whether an error is of a kind. At the plugin level, which does not tell the kind, it
// says yes to every error of our side.
func isKind(err error, kind client.Kind) bool { return ours.Is(err, kind) }

// tells returns true if an error has a kind and a detail besides its text.
func tells(e *client.Error) bool { return e.Kind != ours.Untold }

// mentions says whether the error's text has all these texts. It ignores upper and lower case.
func mentions(e *client.Error, texts ...string) bool {
	for _, text := range texts {
		if !strings.Contains(strings.ToLower(e.Message), strings.ToLower(text)) {
			return false
		}
	}
	return true
}
