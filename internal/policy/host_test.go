package policy

import (
	"net/netip"
	"strings"
	"testing"
)

// ParseHost accepts addresses and names of hosts. If two spellings mean the same address, the
// method String writes both in the same form. It writes names in lower case.
func TestHostIsAnAddressOrAName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("a", 49)+".", 5)
	for text, want := range map[string]string{
		"127.0.0.1":          "127.0.0.1",
		"::1":                "::1",
		"[::1]":              "::1",
		"0:0:0:0:0:0:0:1":    "::1",
		"::ffff:7f00:1":      "127.0.0.1",
		"[::ffff:127.0.0.1]": "127.0.0.1",
		"FE80::1%eth0":       "fe80::1%eth0",
		"fe80::1%2":          "fe80::1%2",
		// the name of a VLAN's interface has a dot
		"fe80::1%x.example.com":  "fe80::1%x.example.com",
		"example.com":            "example.com",
		"EXAMPLE.com":            "example.com",
		"example.com.":           "example.com.",
		"localhost":              "localhost",
		"xn--bcher-kva.example":  "xn--bcher-kva.example",
		"_dmarc.my_host.example": "_dmarc.my_host.example",
		"3com.com":               "3com.com",
		"1.2.3.4.in-addr.arpa":   "1.2.3.4.in-addr.arpa",
		"0xg":                    "0xg",
		"a.0x7f.example":         "a.0x7f.example",
		strings.Repeat("a", 63):  strings.Repeat("a", 63),
		long + "abc":             long + "abc",
		long + "abc.":            long + "abc.",
		"dead.beef":              "dead.beef",
		"127.0.0.1.example.com":  "127.0.0.1.example.com",
		"a--b.example":           "a--b.example",
		"2001:db8::192.0.2.1":    "2001:db8::c000:201",
		// the prefix of NAT64: the address is not read as 127.0.0.1
		"64:ff9b::127.0.0.1":         "64:ff9b::7f00:1",
		"0.0.0.0":                    "0.0.0.0",
		"::":                         "::",
		"fe80:0:0:0:0:0:0:1%4294967": "fe80::1%4294967",
	} {
		h, err := ParseHost(text)
		if err != nil || h.String() != want {
			t.Errorf("ParseHost of %q returns %q, %v; want %q", text, h, err, want)
		}
	}
}

// A host is refused if another parser could read it as a different host.
func TestAmbiguousHostsAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "want an address, or a name",
		".":                             "want an address, or a name",
		"..":                            "want an address, or a name",
		".example.com":                  "want an address, or a name",
		"example.com..":                 "want an address, or a name",
		"a..b":                          "want an address, or a name",
		"*.example.com":                 "want an address, or a name",
		"example.com ":                  "want an address, or a name",
		" 127.0.0.1":                    "want an address, or a name",
		"a b":                           "want an address, or a name",
		"a\x00b":                        "want an address, or a name",
		"a\nb":                          "want an address, or a name",
		"a/b":                           "want an address, or a name",
		"a@b":                           "want an address, or a name",
		"-a.example":                    "want an address, or a name",
		"a-.example":                    "want an address, or a name",
		"bücher.example":                "xn--",
		"\u212a.example":                "xn--",
		"127\u30020\u30020\u30021":      "xn--", // with ideographic full stops
		"\uff11.example":                "xn--",
		"%x.example.com":                "want an address, or a name",
		"127.0.0.1%x.example.com":       "want an address, or a name",
		"127.0.0.1%lo":                  "want an address, or a name",
		"::1%x.example.com":             "the address ::1 takes no zone",
		"[::1%x.example.com]":           "the address ::1 takes no zone",
		"::1%lo":                        "the address ::1 takes no zone",
		"::ffff:7f00:1%x.example.com":   "takes no zone",
		"::ffff:169.254.1.1%eth0":       "takes no zone",
		"2001:db8::1%eth0":              "takes no zone",
		"ff02::1%eth0":                  "takes no zone",
		"fe80::1%":                      "no IPv6 address",
		"fe80::1%a b":                   "network interface",
		"fe80::1%a%b":                   "network interface",
		"fe80::1%a/b":                   "network interface",
		"fe80::1%abcdefghijklmnop":      "network interface",
		"127.1":                         "four decimal numbers",
		"127.0.0.1.":                    "four decimal numbers",
		"2130706433":                    "four decimal numbers",
		"0x7f.1":                        "four decimal numbers",
		"0X7F000001":                    "four decimal numbers",
		"0x":                            "four decimal numbers",
		"0177.0.0.1":                    "four decimal numbers",
		"127.0.0.01":                    "four decimal numbers",
		"256.0.0.1":                     "four decimal numbers",
		"1.2.3.4.5":                     "four decimal numbers",
		"example.com.1":                 "four decimal numbers",
		"example.com:443":               "the port is an argument of its own",
		"127.0.0.1:443":                 "the port is an argument of its own",
		"[::1]:443":                     "brackets are for",
		"[::1":                          "brackets are for",
		"[[::1]]":                       "no IPv6 address",
		"[localhost]":                   "brackets are for",
		"[127.0.0.1]":                   "brackets are for",
		"::1]":                          "no IPv6 address",
		"1::2::3":                       "no IPv6 address",
		"https://example.com/":          "it is a URL",
		strings.Repeat("a", 64):         "want an address, or a name",
		strings.Repeat("a.", 127) + "a": "255 bytes",
	} {
		h, err := ParseHost(text)
		if err == nil {
			t.Errorf("ParseHost of %q returns %q; want an error", text, h)
		} else if !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "is not a host: ") {
			t.Errorf("ParseHost of %q returns the error %q, want %q in it", text, err,
				want)
		}
	}
}

// FuzzDestination checks these promises for any rule and host: If a rule or a host is written as
// text and read again, it is the same. No parser reads a host's name as an address. The answer of
// the policy does not depend on the spelling of the host.
func FuzzDestination(f *testing.F) {
	for _, s := range []string{"example.com:443", "*.example.com:1-2", "10.0.0.0/8:*",
		"[2001:db8::/32]:443", "*:*", "[::1]:1", "\u212a.com:1"} {
		f.Add(s, "www.example.com", 443)
		f.Add(s, "::ffff:10.0.0.1", 1)
		f.Add(s, "::1%x.example.com", 1)
		f.Add(s, "fe80::1%x.example.com", 1)
		f.Add(s, "0x7f.1", 1)
		f.Add(s, "\u212a.com", 1)
	}
	f.Fuzz(func(t *testing.T, rule, text string, port int) {
		host, err := ParseHost(text)
		if err == nil {
			checkHost(t, text, host)
		}
		var d, again Destination
		if d.UnmarshalText([]byte(rule)) != nil {
			return
		}
		written, _ := d.MarshalText()
		if err := again.UnmarshalText(written); err != nil || again != d {
			t.Fatalf("%q is read back as %+v, %v; was %+v", rule, again, err, d)
		}
		if err != nil || port < 1 || port > 65535 {
			return
		}
		p := Policy{Destinations: []Destination{d}}
		answer := p.MayConnect(host, port)
		addr, ok := host.Addr()
		if !ok {
			if d.net.IsValid() && answer == Yes {
				t.Errorf("the network of %q matches the name %s", rule, host)
			}
			return
		}
		if answer == ByAddress || d.name != "" && answer == Yes {
			t.Errorf("with the rule %q, the address %s gets the answer %v; want Yes "+
				"or No, and always No if the rule has a name", rule, addr, answer)
		}
		a := netip.AddrPortFrom(addr, uint16(port))
		if p.MayConnectTo(a) != (answer == Yes) {
			t.Errorf("with the rule %q, MayConnect and MayConnectTo do not agree on %s",
				rule, a)
		}
		mapped := netip.AddrPortFrom(netip.AddrFrom16(addr.As16()), uint16(port))
		if addr.Is4() && p.MayConnectTo(a) != p.MayConnectTo(mapped) {
			t.Errorf("with the rule %q, MayConnectTo judges %s and %s differently",
				rule, a, mapped)
		}
	})
}

// checkHost checks the promises about host, which ParseHost has read from text.
func checkHost(t *testing.T, text string, host Host) {
	if again, err := ParseHost(host.String()); err != nil || again != host {
		t.Errorf("%q is %+v, which is read back as %+v, %v", text, host, again, err)
	}
	if upper, err := ParseHost(strings.ToUpper(text)); !strings.Contains(text, "%") &&
		(err != nil || upper != host) {
		t.Errorf("%q is %+v, in upper case %+v, %v", text, host, upper, err)
	}
	addr, isAddr := host.Addr()
	read, err := netip.ParseAddr(host.String())
	if (err == nil) != isAddr || isAddr && read != addr {
		t.Errorf("%q is the host %+v, but netip reads the host as %v, %v", text, host, read,
			err)
	}
	if isAddr && (addr.Is4In6() || addr.Zone() != "" &&
		!linkLocal.Contains(addr.WithZone(""))) || !isASCII(text) {
		t.Errorf("%q is %+v: it is not ASCII, an IPv4 address in IPv6 form, or has a zone "+
			"that its address cannot have", text, host)
	}
	if !isAddr && strings.ContainsAny(host.String(), ":%/[] *") {
		t.Errorf("%q is the name %q, which has a character of an address", text, host)
	}
}
