package policy

import (
	"net/netip"
	"strings"
	"testing"
)

func destinations(t *testing.T, list ...string) Policy {
	t.Helper()
	p := Policy{Destinations: []Destination{}}
	for _, s := range list {
		var d Destination
		if err := d.UnmarshalText([]byte(s)); err != nil {
			t.Fatal(err)
		}
		p.Destinations = append(p.Destinations, d)
	}
	return p
}

func host(t *testing.T, s string) Host {
	t.Helper()
	h, err := ParseHost(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// MayConnect judges a host before the host's name is looked up. The answer ByAddress means that the
// name must be looked up, and its addresses judged.
func TestDestinationsByName(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule, host string
		port       int
		want       Answer
	}{
		{"example.com:443", "example.com", 443, Yes},
		{"example.com:443", "EXAMPLE.Com", 443, Yes},
		{"example.com:443", "example.com.", 443, Yes},
		{"Example.COM.:443", "example.com", 443, Yes},
		{"example.com:443", "www.example.com", 443, No},
		{"example.com:443", "example.com", 442, No},
		{"example.com:443", "example.com", 444, No},
		{"example.com:443", "notexample.com", 443, No},
		{"*.example.com:443", "www.example.com", 443, Yes},
		{"*.example.com:443", "WWW.example.com.", 443, Yes},
		{"*.example.com:443", "example.com", 443, No},
		{"*.example.com:443", "a.b.example.com", 443, No},
		{"*.example.com:443", "_dmarc.example.com", 443, Yes},
		{"my_service:443", "my_service", 443, Yes},
		{"example.com:100-200", "example.com", 99, No},
		{"example.com:100-200", "example.com", 100, Yes},
		{"example.com:100-200", "example.com", 200, Yes},
		{"example.com:100-200", "example.com", 201, No},
		{"example.com:*", "example.com", 1, Yes},
		{"example.com:*", "example.com", 65535, Yes},
		{"localhost:443", "localhost", 443, Yes},
		// a rule with a name does not allow the addresses of the name
		{"localhost:443", "127.0.0.1", 443, No},
		{"localhost:443", "0.0.0.0", 443, No},
		{"*:443", "anything", 443, Yes},
		{"*:443", "::1", 443, Yes},
		{"*:443", "anything", 80, No},
		{"10.0.0.0/8:443", "example.com", 443, ByAddress},
		{"10.0.0.0/8:443", "192.0.2.1", 443, No},
		{"10.0.0.0/8:443", "10.0.2.1", 443, Yes},
		{"10.0.0.0/8:443", "::ffff:10.0.2.1", 443, Yes},
		{"127.0.0.1:443", "::ffff:7f00:1", 443, Yes},
		{"[::/0]:443", "::ffff:7f00:1", 443, No}, // ::ffff:7f00:1 is IPv4
		{"[fe80::/10]:443", "fe80::1%eth0", 443, Yes},
		{"*.example.com:443", "fe80::1%x.example.com", 443, No},
		// here x.example.com is the name of a network interface
		{"[fe80::/10]:443", "fe80::1%x.example.com", 443, Yes},
		// no rule has this port, so no look-up can change the answer
		{"10.0.0.0/8:443", "example.com", 80, No},
	} {
		got := destinations(t, tc.rule).MayConnect(host(t, tc.host), tc.port)
		if got != tc.want {
			t.Errorf("with the rule %q, host %q, port %d the answer is %v, want %v",
				tc.rule, tc.host, tc.port, got, tc.want)
		}
	}
	if got := destinations(t).MayConnect(host(t, "example.com"), 443); got != No {
		t.Errorf("an empty list gives %v; want No", got)
	}
	if got := (Policy{}).MayConnect(host(t, "example.com"), 443); got != Yes {
		t.Errorf("no list gives %v; want Yes", got)
	}
	if got := destinations(t, "10.0.0.0/8:443", "example.com:443").MayConnect(
		host(t, "example.com"), 443); got != Yes {
		t.Errorf("a list with a network, and then the name, gives %v; want Yes",
			got)
	}
}

// MayConnectTo judges an address, and no name. IPv6 forms of an IPv4 address are judged as that
// IPv4 address.
func TestDestinationsByAddress(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule, addr string
		want       bool
	}{
		{"127.0.0.1:443", "127.0.0.1:443", true},
		{"127.0.0.1:443", "127.0.0.2:443", false},
		{"127.0.0.1:443", "127.0.0.1:444", false},
		{"127.0.0.1:443", "[::ffff:127.0.0.1]:443", true},
		{"127.0.0.1:443", "0.0.0.0:443", true}, // the kernel connects 0.0.0.0 to 127.0.0.1
		{"127.0.0.1:443", "[::ffff:0.0.0.0]:443", true},
		{"10.0.0.0/8:443", "0.0.0.0:443", false},
		{"0.0.0.0/0:443", "0.0.0.0:443", true},
		{"127.0.0.1:443", "[::]:443", false},
		{"[::1]:443", "[::]:443", true},
		{"[::1]:443", "127.0.0.1:443", false},
		{"10.0.0.0/8:443", "10.0.0.0:443", true},
		{"10.0.0.0/8:443", "10.255.255.255:443", true},
		{"10.0.0.0/8:443", "11.0.0.0:443", false},
		{"10.0.0.0/8:443", "9.255.255.255:443", false},
		{"10.0.0.0/8:443", "[::ffff:10.1.2.3]:443", true},
		{"[::/0]:443", "10.1.2.3:443", false},
		{"[::/0]:443", "[::ffff:10.1.2.3]:443", false},
		{"[2001:db8::/32]:443", "[2001:db8:ffff::1]:443", true},
		{"[2001:db8::/32]:443", "[2001:db9::1]:443", false},
		{"[fe80::/10]:443", "[fe80::1%eth0]:443", true},
		{"[fe80::1]:443", "[fe80::1%2]:443", true},
		{"[fe80::1]:443", "[fe80::2%2]:443", false},
		{"*:443", "192.0.2.1:443", true},
		{"*:443", "192.0.2.1:80", false},
		{"example.com:443", "192.0.2.1:443", false},
	} {
		got := destinations(t, tc.rule).MayConnectTo(netip.MustParseAddrPort(tc.addr))
		if got != tc.want {
			t.Errorf("with the rule %q, MayConnectTo(%s) is %v, want %v", tc.rule,
				tc.addr, got, tc.want)
		}
	}
	if !(Policy{}).MayConnectTo(netip.MustParseAddrPort("192.0.2.1:1")) ||
		destinations(t).MayConnectTo(netip.MustParseAddrPort("192.0.2.1:1")) {
		t.Error("no list must allow everything, and an empty list nothing")
	}
}

// A rule of listen is PORTS or ADDRESS:PORTS. To listen on port 0 means to listen on any free port,
// so only a rule with all ports allows port 0.
func TestListenRules(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule, addr string
		want       bool
	}{
		{"8443", "127.0.0.1:8443", true},
		{"8443", "[::]:8443", true},
		{"8443", "127.0.0.1:8442", false},
		{"8443", "127.0.0.1:8444", false},
		{"8000-8999", "127.0.0.1:7999", false},
		{"8000-8999", "127.0.0.1:8000", true},
		{"8000-8999", "127.0.0.1:8999", true},
		{"8000-8999", "127.0.0.1:9000", false},
		{"*", "0.0.0.0:1", true},
		{"127.0.0.1:8443", "127.0.0.1:8443", true},
		{"127.0.0.1:8443", "[::ffff:127.0.0.1]:8443", true},
		{"127.0.0.1:8443", "127.0.0.2:8443", false},
		{"127.0.0.1:8443", "0.0.0.0:8443", false}, // 0.0.0.0: all addresses
		{"127.0.0.0/8:*", "127.9.9.9:1", true},
		{"127.0.0.0/8:*", "[::]:1", false},
		{"[::1]:8443", "[::1]:8443", true},
		{"[::1]:8443", "[::]:8443", false},
		{"0.0.0.0:8443", "0.0.0.0:8443", true},
		{"0.0.0.0:8443", "[::]:8443", false},
		{"*", "127.0.0.1:0", true},
		{"1-65535", "[::]:0", true},
		{"1-65534", "127.0.0.1:0", false},
		{"2-65535", "127.0.0.1:0", false},
		{"8443", "127.0.0.1:0", false},
		{"127.0.0.1:*", "127.0.0.1:0", true},
		{"127.0.0.1:*", "127.0.0.2:0", false},
		{"127.0.0.1:*", "0.0.0.0:0", false},
	} {
		var l Listen
		if err := l.UnmarshalText([]byte(tc.rule)); err != nil {
			t.Fatal(err)
		}
		p, addr := Policy{Listen: []Listen{l}}, netip.MustParseAddrPort(tc.addr)
		if got := p.MayListen(addr); got != tc.want {
			t.Errorf("with the rule %q, MayListen(%s) is %v, want %v", tc.rule, tc.addr,
				got, tc.want)
		}
		if tc.want && !p.MayListenOnPort(int(addr.Port())) {
			t.Errorf("the rule %q allows an address with port %d, but MayListenOnPort "+
				"refuses the port", tc.rule, addr.Port())
		}
	}
	addr := netip.MustParseAddrPort("127.0.0.1:1")
	if none := (Policy{Listen: []Listen{}}); none.MayListen(addr) || none.MayListenOnPort(1) ||
		!(Policy{}).MayListen(addr) || !(Policy{}).MayListenOnPort(1) {
		t.Error("no list must allow everything, and an empty list nothing")
	}
}

func TestBadRulesSayWhatIsWanted(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]string{
		"":                             "want HOST:PORTS",
		"example.com":                  "want HOST:PORTS",
		":443":                         "want HOST:PORTS",
		"2001:db8::1:443":              "want HOST:PORTS",
		"[2001:db8::]/32:443":          "want HOST:PORTS",
		"example.com:":                 "want a number",
		"example.com:0":                "want a number",
		"example.com:65536":            "want a number",
		"example.com:9-8":              "want a number",
		"example.com:1-":               "want a number",
		"example.com:+1":               "want a number",
		"example.com:https":            "want a number",
		"10.0.0.1/8:443":               "the network is 10.0.0.0/8",
		"10.0.0.0/33:443":              "is no network",
		"[fe80::1%eth0]:443":           "a zone cannot be given",
		"[::ffff:10.0.0.1]:443":        "write it as IPv4: 10.0.0.1",
		"[::ffff:10.0.0.0/104]:443":    "write it as a network of IPv4",
		"exa mple.com:443":             "or a name",
		"*example.com:443":             "or a name",
		"www.*.com:443":                "or a name",
		"*.*.com:443":                  "or a name",
		"*.:443":                       "or a name",
		"\u212a.example:443":           "xn--", // the Kelvin sign is no k
		"*.\u212a.example:443":         "xn--",
		"-a.example:443":               "or a name",
		"a-.example:443":               "or a name",
		"bücher.example:443":           "xn--",
		"a..b:443":                     "or a name",
		"a.b..:443":                    "or a name",
		"0x7f.1:443":                   "neither a name nor an address",
		"example.0x7f:443":             "neither a name nor an address",
		"10.0.0:443":                   "neither a name nor an address",
		"*.1:443":                      "neither a name nor an address",
		"https://example.com/:443":     "want HOST:PORTS",
		"example.com/path:443":         "is no network",
		strings.Repeat("a", 64) + ":1": "or a name",
	} {
		var d Destination
		if err := d.UnmarshalText([]byte(rule)); err == nil ||
			!strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), `"`+rule+`"`) && isASCII(rule) {
			t.Errorf("the destination %q gives the error %v, want it to have the rule "+
				"and %q", rule, err, want)
		}
	}
	for rule, want := range map[string]string{
		"":                "want a number",
		"0":               "want a number",
		"65536":           "want a number",
		"1-2-3":           "want a number",
		"localhost:8443":  "want PORTS or ADDRESS:PORTS",
		":8443":           "want PORTS or ADDRESS:PORTS",
		"127.0.0.1:":      "want a number",
		"::1":             "too many colons",
		"127.0.0.1/8:443": "the network is 127.0.0.0/8",
	} {
		var l Listen
		if err := l.UnmarshalText([]byte(rule)); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("the rule of listen %q gives the error %v, want %q in it", rule,
				err, want)
		}
	}
	for _, path := range []string{"", "keys", "./keys", "~/keys", "/a\x00b"} {
		var f Folder
		if err := f.UnmarshalText([]byte(path)); err == nil ||
			!strings.Contains(err.Error(), "absolute path") {
			t.Errorf("the folder %q gives the error %v, want \"absolute path\" in it",
				path, err)
		}
	}
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
