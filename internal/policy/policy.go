// Package policy has an administrator's policy for scripts: it reads the policy file, and decides
// what a script may do. Package session asks this package before it carries out a call. A policy
// does not stop an attacker who runs code of his own in a worker.
//
// # The rules
//
//   - A missing key restricts nothing. An empty list allows nothing.
//   - A key in a user's table replaces the same key of [default] as a whole. Lists are not joined.
//   - A host, an address or a file that cannot be judged is not allowed.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// The keys of a table. The error of a refused call names the key that forbids the call.
const (
	KeySkipVerify   = "insecure-skip-verify"
	KeyMinTLS       = "min-tls"
	KeyListen       = "listen"
	KeyDestinations = "destinations"
	KeyKeyFolders   = "key-folders"
	KeyCAFolders    = "ca-folders"
)

// Policy says what one session may do. The zero value allows everything. A table of the file is
// read into a Policy. The supervisor sends a Policy to a worker as JSON.
type Policy struct {
	SkipVerify *bool `toml:"insecure-skip-verify" json:"insecure-skip-verify,omitzero"`

	MinTLS       Version       `toml:"min-tls" json:"min-tls,omitzero"`
	Listen       []Listen      `toml:"listen" json:"listen,omitzero"`
	Destinations []Destination `toml:"destinations" json:"destinations,omitzero"`
	KeyFolders   Folders       `toml:"key-folders" json:"key-folders,omitzero"`
	CAFolders    Folders       `toml:"ca-folders" json:"ca-folders,omitzero"`
}

// p.over(q) is a copy of p, but each key that q sets has the value of q.
func (p Policy) over(q Policy) Policy {
	if q.SkipVerify != nil {
		p.SkipVerify = q.SkipVerify
	}
	if q.MinTLS.text != "" {
		p.MinTLS = q.MinTLS
	}
	if q.Listen != nil {
		p.Listen = q.Listen
	}
	if q.Destinations != nil {
		p.Destinations = q.Destinations
	}
	if q.KeyFolders != nil {
		p.KeyFolders = q.KeyFolders
	}
	if q.CAFolders != nil {
		p.CAFolders = q.CAFolders
	}
	return p
}

// Keys returns the keys that are set, to be shown to people. A value is a bool, a string or a
// []string.
func (p Policy) Keys() map[string]any {
	keys := map[string]any{}
	if p.SkipVerify != nil {
		keys[KeySkipVerify] = *p.SkipVerify
	}
	if p.MinTLS.text != "" {
		keys[KeyMinTLS] = p.MinTLS.text
	}
	if p.Listen != nil {
		keys[KeyListen] = texts(p.Listen)
	}
	if p.Destinations != nil {
		keys[KeyDestinations] = texts(p.Destinations)
	}
	if p.KeyFolders != nil {
		keys[KeyKeyFolders] = texts(p.KeyFolders)
	}
	if p.CAFolders != nil {
		keys[KeyCAFolders] = texts(p.CAFolders)
	}
	return keys
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

// MaySkipVerify says whether the verification of certificates may be turned off.
func (p Policy) MaySkipVerify() bool { return p.SkipVerify == nil || *p.SkipVerify }

// RequiresTLS13 says whether TLS below 1.3 is forbidden. Without a policy, TLS 1.2 is the minimum.
func (p Policy) RequiresTLS13() bool { return p.MinTLS.text == "1.3" }

// An Answer is the verdict on a host that a script names, before the resolver is asked.
type Answer int

const (
	No        Answer = iota // no address of the host is allowed
	Yes                     // every address of the host is allowed
	ByAddress               // MayConnectTo decides on each address
)

// MayConnect judges a host that a script names, before the resolver is asked. If the host is an
// address, the answer is Yes or No.
func (p Policy) MayConnect(host Host, port int) Answer {
	if p.Destinations == nil {
		return Yes
	}
	answer := No
	if addr, ok := host.Addr(); ok {
		if port == int(uint16(port)) &&
			p.MayConnectTo(netip.AddrPortFrom(addr, uint16(port))) {
			answer = Yes
		}
		return answer
	}
	for _, d := range p.Destinations {
		switch {
		case !d.ports.has(port):
		case d.matchesName(host.name):
			return Yes
		case d.net.IsValid():
			answer = ByAddress
		}
	}
	return answer
}

// MayConnectTo judges an address before a connection to it is made. If a name led to the address,
// call MayConnectTo only if MayConnect has returned ByAddress for the name. An IPv4 address in IPv6
// form counts as the IPv4 address. A zone is ignored. The unspecified address counts as the
// loopback address, because the kernel connects there.
func (p Policy) MayConnectTo(a netip.AddrPort) bool {
	addr := plain(a.Addr())
	switch addr {
	case netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	return p.Destinations == nil ||
		slices.ContainsFunc(p.Destinations, func(d Destination) bool {
			return d.ports.has(int(a.Port())) &&
				(d.any || d.net.IsValid() && d.net.Contains(addr))
		})
}

// MayListenOnPort says whether the policy allows the port on at least one address. Port 0 stands
// for any free port, so it needs a rule for all ports.
func (p Policy) MayListenOnPort(port int) bool {
	return p.Listen == nil || slices.ContainsFunc(p.Listen, func(l Listen) bool {
		return l.allowsPort(port)
	})
}

// MayListen judges the address of a listener. A rule without a network allows every address. A rule
// with a network allows the addresses in the network. 0.0.0.0 and :: get no special treatment. So a
// rule for 10.0.0.0/8 does not allow 0.0.0.0, which stands for all IPv4 addresses of the machine.
// Port 0 needs a rule for all ports.
func (p Policy) MayListen(a netip.AddrPort) bool {
	addr := plain(a.Addr())
	return p.Listen == nil || slices.ContainsFunc(p.Listen, func(l Listen) bool {
		return l.allowsPort(int(a.Port())) && (!l.net.IsValid() || l.net.Contains(addr))
	})
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
