package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A Host is the host of a destination, as a script names it: an address or a name. ParseHost reads
// the text once. The policy judges the resulting Host, and the session dials the same Host.
//
// # The rules
//
//   - An address is written as in RFC 4291 and RFC 5952, or as four decimal numbers. Brackets
//     around IPv6 are accepted.
//   - An IPv4 address in IPv6 form (::ffff:192.0.2.1) counts as the IPv4 address.
//   - A zone is accepted only with a link-local address (fe80::/10), because no other address needs
//     one. The rules of a policy ignore the zone.
//   - A name has labels as in RFC 1123, and may have a final dot. Underscores are accepted too,
//     because real hosts have them.
//   - A name whose last label is a number ("127.1", "2130706433", "0x7f.1") is refused, because
//     some resolvers take it for an address.
//   - Only ASCII is accepted. An international name is written in its xn-- form.
//
// So no name can be read as an address, and no address as a name.
type Host struct {
	addr     netip.Addr // not valid if the host is a name
	name     string     // in lower case, without a final dot
	absolute bool       // the name had a final dot: the resolver uses no search list
}

var linkLocal = netip.MustParsePrefix("fe80::/10")

// ParseHost reads a host. The error quotes the host, at most 80 characters of it, and says what is
// accepted.
func ParseHost(s string) (Host, error) {
	h, err := parseHost(s)
	if err != nil {
		return Host{}, fmt.Errorf("%.80q is not a host: %w", s, err)
	}
	return h, nil
}

func parseHost(s string) (Host, error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		addr, err := parseAddr(inner)
		if !closed || !strings.Contains(inner, ":") {
			err = errors.New("brackets are for an IPv6 address, such as [2001:db8::1]")
		}
		return Host{addr: addr}, err
	}
	if strings.Contains(s, "://") {
		return Host{}, errors.New("it is a URL; give its host alone, such as example.com")
	}
	if strings.Contains(s, ":") {
		addr, err := parseAddr(s)
		return Host{addr: addr}, err
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return Host{addr: addr}, nil
	}
	name, absolute := strings.CutSuffix(s, ".")
	name, err := parseName(name)
	return Host{name: name, absolute: absolute}, err
}

// parseAddr reads an address that may have a zone.
func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, errors.New("it has a colon, but is no IPv6 address; the " +
			"port is an argument of its own")
	}
	zone := addr.Zone()
	if zone == "" {
		return addr.Unmap(), nil
	}
	// IsLinkLocalUnicast of netip would accept 169.254.0.0/16 in IPv6 form, too.
	if !linkLocal.Contains(addr.WithZone("")) {
		return netip.Addr{}, fmt.Errorf("the address %s takes no zone; only a "+
			"link-local address (fe80::/10) can have a zone", addr.WithZone(""))
	}
	// The name of an interface has at most 15 bytes, without blanks and slashes.
	odd := func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("%/:[]", r)
	}
	if len(zone) > 15 || strings.ContainsFunc(zone, odd) {
		return netip.Addr{}, errors.New("what follows % must be the name or the number " +
			"of a network interface")
	}
	return addr, nil
}

// parseName reads a name without a final dot. The result is in lower case.
func parseName(s string) (string, error) {
	if len(s) > 253 {
		return "", fmt.Errorf("it has %d bytes; a name has at most 253", len(s))
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return "", errors.New("want an address, or a name: labels of 1 to 63 " +
				"letters, digits, hyphens (not first, not last) and underscores, " +
				"with dots between them; write other letters in the xn-- form")
		}
		last = label
	}
	// The name has only ASCII by now. This matters, because ToLower turns some other characters
	// into ASCII, such as the Kelvin sign into k.
	name := strings.ToLower(s)
	if isNumber(strings.ToLower(last)) {
		return "", errors.New("it is neither a name nor an address: its last label is a " +
			"number; write an IPv4 address as four decimal numbers")
	}
	return name, nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// isNumber says whether inet_aton(3) takes a lower-case label for a number: decimal, octal or
// hexadecimal.
func isNumber(label string) bool {
	if digits, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// Addr returns the address, if the host is an address. An IPv4 address never has the IPv6 form.
func (h Host) Addr() (addr netip.Addr, ok bool) { return h.addr, h.addr.IsValid() }

// String returns the host as text, for a resolver or for the check of a certificate. ParseHost of
// this text gives the same Host.
func (h Host) String() string {
	switch {
	case h.addr.IsValid():
		return h.addr.String()
	case h.absolute:
		return h.name + "."
	}
	return h.name
}
