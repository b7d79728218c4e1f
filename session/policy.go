package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"tlsd/internal/audit"
	"tlsd/internal/kind"
	"tlsd/internal/policy"
	"tlsd/openssl"
)

// What the administrator's policy does not allow is refused here, with an error of kind "denied"
// and an audit event. The error names the policy's key. A name is judged before its look-up, an
// address when it is about to be used, and a file while it is being opened. So nothing can change
// between the check and the use.

// denied makes the error of a call that is refused, and writes the audit event. The parameter
// asked is the text for the event. The parameter doing begins the text of the error, for example
// "listening on 0.0.0.0:443".
func (s *Session) denied(op, key, asked, doing string) *Error {
	s.note(audit.Event{Name: audit.Denied, Method: op, Asked: asked, Key: key})
	return fail(kind.Denied, "%s is not allowed by the administrator's policy (%s)", doing, key)
}

func (s *Session) note(e audit.Event) {
	if s.Audit != nil {
		s.Audit(e)
	}
}

// errRefused stops the net package from using an address that is not allowed.
var errRefused = errors.New("the address is not allowed")

// dial connects to a host at one of the addresses that the policy allows. The host is looked up
// once. So the policy judges exactly the address that is dialled.
func (s *Session) dial(ctx context.Context, host policy.Host, port int) (net.Conn, error) {
	const op = "tls.NewClient"
	target := net.JoinHostPort(host.String(), strconv.Itoa(port))
	answer := s.Policy.MayConnect(host, port)
	if answer == policy.No {
		return nil, s.denied(op, policy.KeyDestinations, target, "connecting to "+target)
	}
	addresses, err := s.lookUp(ctx, host, port)
	if err != nil {
		return nil, err
	}
	var (
		allowed []netip.AddrPort
		refused []string
	)
	for _, a := range addresses {
		if answer == policy.Yes || s.Policy.MayConnectTo(a) {
			allowed = append(allowed, a)
		} else {
			refused = append(refused, a.String())
		}
	}
	if len(allowed) == 0 {
		target = fmt.Sprintf("%s (%s)", target, strings.Join(refused, ", "))
		return nil, s.denied(op, policy.KeyDestinations, target, "connecting to "+target)
	}
	nc, err := race(ctx, interleave(allowed), s.attemptPause, connectTo)
	if err != nil && ctx.Err() == nil && allowed[0] != addresses[0] {
		return nil, fail(kind.Connect,
			"cannot connect to any address that the administrator's policy (%s) "+
				"allows; not allowed: %s",
			policy.KeyDestinations, strings.Join(refused, ", "))
	}
	return nc, err
}

// listen listens on an address that the policy allows. The policy judges the address that is about
// to be bound. op is the name of the call, for the audit event. addr comes from net.JoinHostPort,
// with the host as the script has written it: perhaps with brackets.
func (s *Session) listen(ctx context.Context, op, addr string) (net.Listener, error) {
	colon := strings.LastIndexByte(addr, ':')
	hostText, portText := addr[:colon], addr[colon+1:]
	if strings.HasPrefix(hostText, "[") {
		hostText = hostText[1 : len(hostText)-1]
	}
	host, err := policy.ParseHost(hostText)
	if err != nil {
		return nil, fail(kind.Params, "%v", err)
	}
	addr = net.JoinHostPort(host.String(), portText)
	var lc net.ListenConfig
	if s.Policy.Listen == nil {
		return lc.Listen(ctx, network(addr), addr)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	refuse := func(asked string) error {
		doing := "listening on " + asked
		if port == 0 {
			doing += " (any free port)"
		}
		return s.denied(op, policy.KeyListen, asked, doing)
	}
	if !s.Policy.MayListenOnPort(port) {
		return nil, refuse(addr) // a port that is not allowed causes no look-up
	}
	// refused is the address that the policy does not allow. Only this goroutine uses it. The
	// audit event is written after Listen, and not in Control, because Go may call Control
	// twice for an address: for MPTCP, and then for TCP.
	refused := ""
	lc.Control = func(network, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		// If the listener takes clients of both families at all addresses, Go may write
		// 0.0.0.0 in place of [::].
		if err == nil && a.Addr().IsUnspecified() && network == "tcp6" {
			a = netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
			address = a.String()
		}
		if err != nil || !s.Policy.MayListen(a) {
			refused = address
			return errRefused
		}
		return nil
	}
	ln, err := lc.Listen(ctx, network(addr), addr)
	if errors.Is(err, errRefused) {
		return nil, refuse(refused)
	}
	return ln, err
}

// within returns an opener for a file that must be in one of the folders.
func (s *Session) within(op, key string, folders policy.Folders, path string) opener {
	return func() (*os.File, error) {
		f, err := folders.Open(path)
		if errors.Is(err, policy.ErrOutside) {
			return nil, s.denied(op, key, path, "the file "+path)
		}
		return f, err
	}
}

// skipVerify judges whether a script may turn off the verification of a server's certificate. It
// writes an audit event, whether the policy allows this or not.
func (s *Session) skipVerify(peer string) error {
	const op = "tls.SetInsecureSkipVerify"
	if !s.Policy.MaySkipVerify() {
		return s.denied(op, policy.KeySkipVerify, peer,
			"turning off the verification of "+peer)
	}
	s.note(audit.Event{Name: audit.InsecureSkipVerify, Method: op, Asked: peer})
	return nil
}

// versions limits an engine's context to the versions of TLS that the policy allows.
func (s *Session) versions(e EngineContext, err error) (EngineContext, error) {
	if err == nil && s.Policy.RequiresTLS13() {
		e.RequireTLS13()
	}
	return e, err
}

// judgeHandshake returns e, the error of a failed handshake. A handshake may have failed because
// the peer has no version of TLS that the policy allows. Then e becomes an error of kind "denied",
// with an audit event. err is the engine's error.
func (s *Session) judgeHandshake(op, peer string, err error, e *Error) *Error {
	var h *openssl.HandshakeError
	if s.Policy.RequiresTLS13() && e.Kind == kind.Handshake && errors.As(err, &h) && h.Version {
		s.note(audit.Event{Name: audit.Denied, Method: op, Asked: peer,
			Key: policy.KeyMinTLS})
		e.Kind = kind.Denied
		e.Why += fmt.Sprintf("; TLS below 1.3 is not allowed by the administrator's "+
			"policy (%s)", policy.KeyMinTLS)
	}
	return e
}
