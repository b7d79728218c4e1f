package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// This file has the types of the values in a policy file. UnmarshalText reads a value, and its
// error says which values are accepted. MarshalText returns the text that was read. For a Folder it
// returns the shortest form of the path.

// Version is a version of TLS: "1.2" or "1.3". The text "" means that no version is given. Version
// is a struct, because the TOML library ignores UnmarshalText of a string type.
type Version struct{ text string }

func (v Version) String() string { return v.text }

// MarshalText writes the version.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.text), nil }

// UnmarshalText reads the version.
func (v *Version) UnmarshalText(b []byte) error {
	if s := string(b); s != "1.2" && s != "1.3" {
		return fmt.Errorf("%q: want \"1.2\" or \"1.3\"", s)
	}
	v.text = string(b)
	return nil
}

// A Destination says where a script may connect to: HOST:PORTS. PORTS is a number, a range
// LOW-HIGH, or *. HOST is one of these:
//
//   - a name;
//   - *.NAME, which stands for the names with one more label;
//   - an address;
//   - a network, such as 10.0.0.0/8 or [2001:db8::/32];
//   - *, which stands for every host.
type Destination struct {
	text  string
	any   bool         // HOST is *
	name  string       // in lower case, without a final dot; may begin with "*."
	net   netip.Prefix // an address is a network with one address
	ports ports
}

func (d Destination) String() string { return d.text }

// MarshalText writes HOST:PORTS.
func (d Destination) MarshalText() ([]byte, error) { return []byte(d.text), nil }

// UnmarshalText reads HOST:PORTS.
func (d *Destination) UnmarshalText(b []byte) error {
	s := string(b)
	host, portText, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%q: want HOST:PORTS, such as \"example.com:443\", "+
			"\"*.example.com:8000-8999\", \"10.0.0.0/8:*\" or \"[2001:db8::/32]:443\"",
			s)
	}
	out := Destination{text: s}
	if out.ports, err = parsePorts(portText); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	if host == "*" {
		out.any = true
	} else if out.net, err = parseNet(host); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	} else if !out.net.IsValid() {
		if out.name, err = parsePattern(host); err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
	}
	*d = out
	return nil
}

// matchesName says whether the destination allows a host that has this name. The name must be in
// lower case and without a final dot.
func (d Destination) matchesName(name string) bool {
	if d.any {
		return true
	}
	if d.name == "" {
		return false
	}
	if parent, ok := strings.CutPrefix(d.name, "*."); ok {
		_, rest, found := strings.Cut(name, ".")
		return found && rest == parent
	}
	return name == d.name
}

// A Listen says where a script may listen: PORTS, or ADDRESS:PORTS. ADDRESS is an address or a
// network.
type Listen struct {
	text  string
	net   netip.Prefix // not valid if every address is allowed
	ports ports
}

func (l Listen) String() string { return l.text }

// allowsPort judges a port. Port 0 stands for any free port, so it needs PORTS * or 1-65535.
func (l Listen) allowsPort(port int) bool {
	return l.ports.has(port) || port == 0 && l.ports == everyPort
}

// MarshalText writes PORTS or ADDRESS:PORTS.
func (l Listen) MarshalText() ([]byte, error) { return []byte(l.text), nil }

// UnmarshalText reads PORTS or ADDRESS:PORTS.
func (l *Listen) UnmarshalText(b []byte) error {
	s := string(b)
	out := Listen{text: s}
	portText := s
	if strings.Contains(s, ":") {
		host, p, err := net.SplitHostPort(s)
		if err == nil {
			out.net, err = parseNet(host)
		}
		if err == nil && !out.net.IsValid() {
			err = errors.New("want PORTS or ADDRESS:PORTS, such as \"8443\", " +
				"\"8000-8999\", \"127.0.0.1:8443\" or \"[::1]:*\"")
		}
		if err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
		portText = p
	}
	var err error
	if out.ports, err = parsePorts(portText); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	*l = out
	return nil
}

// parseNet reads an address or a network. For a text that can be a name, it returns an invalid
// Prefix and no error.
func parseNet(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		switch {
		case addr.Zone() != "":
			return netip.Prefix{}, errors.New("a zone cannot be given: a rule " +
				"applies to all zones")
		case addr.Is4In6():
			return netip.Prefix{}, fmt.Errorf("write it as IPv4: %s", addr.Unmap())
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if !strings.ContainsAny(s, "/:") {
		return netip.Prefix{}, nil
	}
	n, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return n, fmt.Errorf("%q is no network: want an address and a number of bits, "+
			"such as 10.0.0.0/8 or [2001:db8::/32]", s)
	case n.Addr().Is4In6():
		return netip.Prefix{}, errors.New("write it as a network of IPv4")
	case n != n.Masked():
		return netip.Prefix{}, fmt.Errorf("the network is %s: only the first %d bits may "+
			"be set", n.Masked(), n.Bits())
	}
	return n, nil
}

// parsePattern reads NAME or *.NAME, and removes a final dot.
func parsePattern(s string) (string, error) {
	name, wild := strings.CutPrefix(strings.TrimSuffix(s, "."), "*.")
	name, err := parseName(name)
	if err != nil {
		return "", fmt.Errorf("%w; *. may stand before a name", err)
	}
	if wild {
		name = "*." + name
	}
	return name, nil
}

// ports is a range of ports.
type ports struct{ low, high int }

var everyPort = ports{1, 65535}

func (p ports) has(port int) bool { return p.low <= port && port <= p.high }

func parsePorts(s string) (ports, error) {
	if s == "*" {
		return everyPort, nil
	}
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	l, lok := parsePort(low)
	h, hok := parsePort(high)
	if !lok || !hok || l > h {
		return ports{}, fmt.Errorf("ports %q: want a number from 1 to 65535, a range "+
			"LOW-HIGH, or *", s)
	}
	return ports{l, h}, nil
}

func parsePort(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil && n > 0
}

// A Folder is the absolute path of a folder.
type Folder struct{ path string }

func (f Folder) String() string { return f.path }

// MarshalText writes the path.
func (f Folder) MarshalText() ([]byte, error) { return []byte(f.path), nil }

// UnmarshalText reads the path.
func (f *Folder) UnmarshalText(b []byte) error {
	s := string(b)
	if !filepath.IsAbs(s) || strings.ContainsRune(s, 0) {
		return fmt.Errorf("%q: want the absolute path of a folder", s)
	}
	f.path = filepath.Clean(s)
	return nil
}
