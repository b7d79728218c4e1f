package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"tlsd/rpc/client"
	"tlsd/rpc/wire"
)

// This file turns the words of a command into calls. It checks that each word has the form of its
// parameter's type, such as a number. Tlsd decides whether the value makes sense.

type paramType int

const (
	text   paramType = iota
	number           // a decimal integer
	handle           // a number from 1 to 2147483647
	file             // a path, which is made absolute
	blob             // bytes: the word itself, or what it refers to (source.read)
)

type param struct {
	name     string
	typ      paramType
	optional bool
	mayEmpty bool // for the type file: an empty word is allowed, and means no file
}

// method is an entry of the parameter table.
type method struct {
	name   string
	params []param
	blob   bool // the result is a blob
	about  string
}

var (
	pHandle = param{name: "handle", typ: handle}
	pCtx    = param{name: "ctxHandle", typ: handle}
	pHost   = param{name: "host", typ: text}
	pPort   = param{name: "port", typ: number}

	pCertFile = param{name: "certFile", typ: file}
	pKeyFile  = param{name: "keyFile", typ: file}
)

// This table of methods follows proto.md, section 4. It lacks tls.Hello, because client.Dial makes
// this call. It lacks tls.Signal and the parameters "channel", because words cannot carry
// descriptors.
var methods = []method{
	{"tls.NewClient", []param{pHost, pPort}, false, "open a connection"},
	{"tls.Handshake", []param{pHandle}, false, "do the TLS handshake and verify the server"},
	{"tls.Write", []param{pHandle, {name: "data", typ: blob}}, false, "send all of the data"},
	{"tls.Read", []param{pHandle, {name: "maxBytes", typ: number}}, true,
		"wait for data; an empty result is the end"},
	{"tls.Status", []param{pHandle}, false, "the state of both directions of a connection"},
	{"tls.Flush", []param{pHandle, {name: "bytes", typ: number}}, false,
		"wait until that many bytes are sent"},
	{"tls.Shutdown", []param{pHandle}, false, "send close_notify; reading goes on"},
	{"tls.Close", []param{pHandle}, false, "close a connection"},
	{"tls.SetInsecureSkipVerify", []param{pHandle, {name: "on", typ: number}}, false,
		"1: do not verify; for tests only"},
	{"tls.NewServerContext", []param{pCertFile, pKeyFile}, false,
		"load a certificate and its key"},
	{"tls.Accept", []param{pCtx, pHost, pPort}, false,
		"wait for a client, and do the handshake"},
	{"tls.Listen", []param{pCtx, pHost, pPort}, false, "bind an address; port 0: any free one"},
	{"tls.CloseServerContext", []param{pCtx}, false, "stop listening"},
	{"tls.SetCertificate",
		[]param{pHandle, {name: "serverName", typ: text}, pCertFile, pKeyFile}, false,
		"replace a certificate, for a name or for all"},
	{"tls.SetOption", []param{pHandle, {name: "name", typ: text}, {name: "value", typ: text}},
		false, "set an option of a handle"},
	{"tls.Wait", []param{{name: "milliseconds", typ: number}}, false,
		"wait for a handle whose option watch is 1"},
	{"tls.ReadPlain", []param{pHandle, {name: "maxBytes", typ: number}}, true,
		"read before the handshake"},
	{"tls.WritePlain", []param{pHandle, {name: "data", typ: blob}}, false,
		"send before the handshake"},
	{"tls.SetCaBundle", []param{{name: "path", typ: file, mayEmpty: true}}, false,
		"trust these CA certificates instead of the system's; empty: the system's"},
	{"tls.PeerCertSubject", []param{pHandle}, false, "the subject of the peer's certificate"},
	{"tls.SetTimeout",
		[]param{{name: "handle", typ: number}, {name: "milliseconds", typ: number}}, false,
		"set the timeout of a handle's calls; handle 0: of NewClient; 0 ms: tlsd's own"},
	{"tls.Backend", nil, false, "openssl, or stub if there is no library"},
	{"tls.Version", []param{{name: "handle", typ: handle, optional: true}}, false,
		"the library's version, or a connection's"},
	{"tls.LastError", nil, false, "the text of the session's last error"},
	{"tls.Info", []param{{name: "handle", typ: handle, optional: true},
		{name: "name", typ: text, optional: true}}, false,
		"the daemon's library and limits, or a handle's facts"},
	{"rpc.discover", nil, false, "the OpenRPC document of all methods"},
}

// usage is the method with its parameters, without "tls.".
func (m *method) usage() string {
	var b strings.Builder
	b.WriteString(strings.TrimPrefix(m.name, "tls."))
	for _, p := range m.params {
		if p.optional {
			fmt.Fprintf(&b, " [%s]", p.name)
		} else {
			b.WriteString(" " + p.name)
		}
	}
	return b.String()
}

func findMethod(name string) (*method, error) {
	var near []string
	for i := range methods {
		m := &methods[i]
		if short := strings.TrimPrefix(m.name, "tls."); name == m.name || name == short {
			return m, nil
		} else if strings.EqualFold(name, m.name) || strings.EqualFold(name, short) {
			near = append(near, short)
		}
	}
	if len(near) > 0 {
		return nil, fmt.Errorf("no method %q; did you mean %s?", name, near[0])
	}
	return nil, fmt.Errorf("no method %q; tlsshim call --help lists the methods", name)
}

// invocation is a call with its arguments.
type invocation struct {
	*method
	args []any  // by position, without the blob
	data []byte // the blob argument; nil: none
}

// source gives the data of blob arguments. The field stdin is a function that reads standard input.
// It is nil in the subcommand shell, and after its first use.
type source struct {
	stdin func() ([]byte, error)
}

// parseCalls turns words into calls. "--" separates two calls.
func parseCalls(words []string, src source) ([]invocation, error) {
	var calls []invocation
	for start, i := 0, 0; i <= len(words); i++ {
		if i < len(words) && words[i] != "--" {
			continue
		}
		inv, err := parseCall(words[start:i], &src)
		if err != nil {
			return nil, err
		}
		calls = append(calls, inv)
		start = i + 1
	}
	return calls, nil
}

func parseCall(words []string, src *source) (invocation, error) {
	if len(words) == 0 {
		return invocation{}, errors.New("a method is missing")
	}
	m, err := findMethod(words[0])
	if err != nil {
		return invocation{}, err
	}
	inv := invocation{method: m}
	words = words[1:]
	for i, p := range m.params {
		if i == len(words) {
			if p.optional {
				break
			}
			return inv, fmt.Errorf("%s: %s is missing; want %s",
				m.name, p.name, m.usage())
		}
		if err := inv.add(p, words[i], src); err != nil {
			return inv, fmt.Errorf("%s: %s: %w", m.name, p.name, err)
		}
	}
	if len(words) > len(m.params) {
		return inv, fmt.Errorf("%s: one argument too many, %q; want %s",
			m.name, words[len(m.params)], m.usage())
	}
	return inv, nil
}

// The method add checks a word, and adds it as the argument for p.
func (inv *invocation) add(p param, word string, src *source) error {
	if !utf8.ValidString(word) && p.typ != blob {
		return fmt.Errorf("%q is not UTF-8, which JSON needs", word)
	}
	switch p.typ {
	case text:
		inv.args = append(inv.args, word)
	case number, handle:
		n, err := parseNumber(word, p.typ == handle)
		if err != nil {
			return err
		}
		inv.args = append(inv.args, n)
	case file:
		path, err := parseFile(word, p.mayEmpty)
		if err != nil {
			return err
		}
		inv.args = append(inv.args, path)
	case blob:
		data, err := src.read(word)
		if err != nil {
			return err
		}
		if len(data) > wire.MaxBlob {
			return fmt.Errorf("more than %d bytes; send them with several calls",
				wire.MaxBlob)
		}
		inv.data = data
	}
	return nil
}

// parseNumber reads a number, or a handle.
func parseNumber(word string, isHandle bool) (int64, error) {
	n, err := strconv.ParseInt(word, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is out of range", word)
	case err != nil:
		return 0, fmt.Errorf("%q is not a number", word)
	case isHandle && (n < 1 || n > math.MaxInt32):
		return 0, fmt.Errorf("%d is no handle; handles are 1 to 2147483647", n)
	}
	return n, nil
}

// parseFile makes a path absolute. If mayEmpty is true, an empty word stays empty. If mayEmpty is
// false, an empty word is an error.
func parseFile(word string, mayEmpty bool) (string, error) {
	if word == "" && mayEmpty {
		return "", nil
	}
	if word == "" {
		return "", errors.New("the path is empty")
	}
	return filepath.Abs(word)
}

// The method read returns the data that a word stands for. The result is not nil. If the data is
// too long, the result may be only its first wire.MaxBlob+1 bytes. The method add refuses both.
func (s *source) read(word string) ([]byte, error) {
	if literal, ok := strings.CutPrefix(word, "text:"); ok {
		return []byte(literal), nil
	}
	if encoded, ok := strings.CutPrefix(word, "base64:"); ok {
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("base64: %w", err)
		}
		return data, nil
	}
	if path, ok := strings.CutPrefix(word, "@"); ok {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readBlob(f)
	}
	if word != "-" {
		return []byte(word), nil
	}
	if s.stdin == nil {
		return nil, errors.New("- is standard input: only tlsshim call can read it, and " +
			"only once; want @FILE, or text:- for a hyphen")
	}
	read := s.stdin
	s.stdin = nil // a second read would find no data
	return read()
}

func readBlob(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, wire.MaxBlob+1))
}

// asHandle is the first argument as a handle.
func (inv *invocation) asHandle() client.Handle { return client.Handle(inv.args[0].(int64)) }
