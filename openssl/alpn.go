package openssl

import (
	"errors"
	"fmt"
	"unsafe"
)

// Application-Layer Protocol Negotiation (RFC 7301). A client offers a list of protocols. A server
// takes the first protocol of its own list that the client has offered. If there is none, the
// server ends the handshake with no_application_protocol. If one side has no list, the handshake
// goes on without a protocol.

// encodeALPN encodes a list of protocols for the extension: each name follows its length.
func encodeALPN(protocols []string) ([]byte, error) {
	var list []byte
	for _, p := range protocols {
		if len(p) == 0 || len(p) > 255 {
			return nil, fmt.Errorf("%q is no application protocol: its name has %d "+
				"bytes, and must have 1 to 255", p, len(p))
		}
		list = append(append(list, byte(len(p))), p...)
	}
	if len(list) > 65535 {
		return nil, fmt.Errorf("the list of application protocols has %d bytes, and may "+
			"have 65535", len(list))
	}
	return list, nil
}

// offerALPN makes a client offer the list. Call it inside the function exclusive (call.go).
func (l *Library) offerALPN(ssl uintptr, list []byte) bool {
	if len(list) == 0 {
		return true
	}
	// 0 is success
	return int32(call(l.sym.sslSetALPN, ssl, uintptr(unsafe.Pointer(&list[0])),
		uintptr(len(list)))) == 0
}

// selectALPN is the callback of all server contexts. C must not keep a pointer to Go's memory. So
// the context's settings are in l.servers, and the last parameter is their key. The chosen
// protocol needs no memory of its own: *out points into the client's list.
func (l *Library) selectALPN(_, out, outLen, in, inLen, number uintptr) (result uintptr) {
	result = alpnFatal
	defer func() { _ = recover() }() // a panic must not unwind C's frames
	s, ok := l.servers.Load(number)
	if !ok {
		return
	}
	offered := unsafe.Slice((*byte)(pointer(in)), int(uint32(inLen)))
	index, err := chooseALPN(s.(*serverSettings).alpn, offered)
	if err != nil {
		return
	}
	if index < 0 {
		return alpnNone
	}
	*(*uintptr)(pointer(out)) = in + uintptr(index) + 1
	*(*byte)(pointer(outLen)) = offered[index]
	return alpnOK
}

var errNoOverlap = errors.New("no application protocol in common")

// chooseALPN finds the first of our protocols that is in the client's list. It returns the position
// of the protocol's length byte in the list. If we have no protocols, it returns -1 and no error.
// The error is errNoOverlap if the list has none of our protocols, or is malformed.
func chooseALPN(ours []string, offered []byte) (index int, err error) {
	if len(ours) == 0 {
		return -1, nil
	}
	for _, p := range ours {
		for at := 0; at < len(offered); at += 1 + int(offered[at]) {
			end := at + 1 + int(offered[at])
			if end > len(offered) {
				return -1, errNoOverlap
			}
			if string(offered[at+1:end]) == p {
				return at, nil
			}
		}
	}
	return -1, errNoOverlap
}
