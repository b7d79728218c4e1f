package session_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"tlsd/internal/kind"
	"tlsd/internal/testkit"
)

// dns runs a name server, which gives each name the same IPv4 addresses. It returns a resolver that
// asks this server, and the number of questions that the server has got.
func dns(t *testing.T, addrs ...string) (resolver *net.Resolver, asked *atomic.Int32) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	t.Cleanup(func() { server.Close(); <-gone })
	asked = &atomic.Int32{}
	go func() {
		defer close(gone)
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			asked.Add(1)
			server.WriteTo(answer(buf[:n], addrs), from)
		}
	}()
	return &net.Resolver{PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
		}}, asked
}

// answer makes the answer to a question (RFC 1035).
func answer(query []byte, addrs []string) []byte {
	end := 12 // the length of the header; then come the labels of the name
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	question := query[12 : end+5]
	if binary.BigEndian.Uint16(query[end+1:]) != 1 { // the question is not for IPv4 addresses
		addrs = nil
	}
	msg := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, byte(len(addrs)), 0, 0, 0, 0},
		question...)
	for _, a := range addrs {
		// the question's name, type A, class IN, TTL 0, 4 bytes of data
		msg = append(msg, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		msg = append(msg, netip.MustParseAddr(a).AsSlice()...)
	}
	return msg
}

// tlsd connects only to addresses that the policy allows, whatever addresses the DNS gives.
func TestNamesDoNotLeadAroundTheAddressRules(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rules string
		addrs []string
		open  bool // a server listens at 127.0.0.1
		kind  kind.Kind
		text  string
	}{
		"an address that is not allowed":        {`"10.0.0.0/8:*"`, []string{"127.0.0.1"}, true, kind.Denied, "connecting to x.test:%[1]d (127.0.0.1:%[1]d) is not allowed"},
		"several":                               {`"10.0.0.0/8:*"`, []string{"127.0.0.1", "127.0.0.2"}, true, kind.Denied, "x.test:%[1]d (127.0.0.1:%[1]d, 127.0.0.2:%[1]d)"},
		"none at all":                           {`"10.0.0.0/8:*"`, nil, true, kind.Connect, "no such host"},
		"the unspecified address":               {`"10.0.0.0/8:*"`, []string{"0.0.0.0"}, true, kind.Denied, "x.test:%[1]d (0.0.0.0:%[1]d)"},
		"one that is allowed":                   {`"127.0.0.0/8:*"`, []string{"127.0.0.1"}, true, "", ""},
		"the allowed one after another":         {`"127.0.0.1:*"`, []string{"127.0.0.2", "127.0.0.1"}, true, "", ""},
		"the allowed one does not answer":       {`"127.0.0.1:*"`, []string{"127.0.0.2", "127.0.0.1"}, false, kind.Connect, "not allowed: 127.0.0.2:%[1]d"},
		"the allowed one does not answer first": {`"127.0.0.1:*"`, []string{"127.0.0.1", "127.0.0.2"}, false, kind.Connect, "connection refused"},
		"a name that is allowed":                {`"x.test:*"`, []string{"127.0.0.1"}, true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, a := ruled(t, "destinations = ["+tc.rules+"]")
			port := testkit.Port(t)
			if tc.open {
				port = r.echo()
			}
			resolver, _ := dns(t, tc.addrs...)
			r.SetNames(resolver)
			call := r.start(r.NewClient("x.test", port))
			if tc.kind == "" {
				call.ok()
				return
			}
			err := call.fails(tc.kind)
			want := strings.ReplaceAll(tc.text, "%[1]d", fmt.Sprint(port))
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %q, want one that says %q", err, want)
			}
			if (len(a.list) > 0) != (tc.kind == kind.Denied) {
				t.Errorf("the audit events are %+v, want one or more if the "+
					"kind is denied, and else none", a.list)
			}
		})
	}
}

// tlsd does not look up a name that the policy forbids. So the DNS does not learn the name.
func TestForbiddenNamesAreNotLookedUp(t *testing.T) {
	t.Parallel()
	r, _ := ruled(t, `destinations = ["example.com:443", "127.0.0.1:444"]`)
	resolver, asked := dns(t, "127.0.0.1")
	r.SetNames(resolver)
	r.fails(r.NewClient("secret.test", 443), kind.Denied)
	if n := asked.Load(); n != 0 {
		t.Errorf("the DNS was asked %d times for a forbidden name, want 0", n)
	}
	// With port 444 the name is looked up: its address may be 127.0.0.1, which is allowed.
	r.fails(r.NewClient("secret.test", 444), kind.Connect)
	if asked.Load() == 0 {
		t.Error("the DNS was not asked for a name that the policy does not forbid, so " +
			"the check above proves nothing")
	}
}
