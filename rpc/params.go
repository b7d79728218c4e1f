package rpc

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
	"tlsd/session"
)

type paramType int

const (
	integer paramType = iota // from min to max
	str                      // min to max bytes, no NUL
	blob                     // base64
	texts                    // array of strings
	anyID                    // string, integer or null
)

// A param describes one parameter, for decoding and for rpc.discover.
type param struct {
	name     string
	typ      paramType
	min, max int64
	optional bool
	doc      string
}

// args are the decoded parameters of a call, in the order of method.params. An optional parameter
// that was left out is nil.
type args []any

func (a args) handle(i int) session.Handle { return session.Handle(a[i].(int64)) }
func (a args) int(i int) int               { return int(a[i].(int64)) }
func (a args) str(i int) string            { return a[i].(string) }
func (a args) blob(i int) []byte           { return a[i].([]byte) }

// channel returns the data channel that came with a call, or nil; see method.attach.
func (a args) channel(i int) *net.UnixConn {
	ch, _ := a[i].(*net.UnixConn)
	return ch
}

// decode decodes a call's parameters strictly, by position or by name. Only optional ones may be
// missing, and none may be surplus. Each must have its type and be in its range.
func (m *method) decode(params json.RawMessage) (args, error) {
	given, err := m.sortParams(params)
	if err != nil {
		return nil, err
	}
	a := make(args, len(m.params))
	for i, p := range m.params {
		switch {
		case given[i] != nil:
			if a[i], err = m.value(p, given[i]); err != nil {
				return nil, err
			}
		case !p.optional:
			return nil, m.paramError("%s is missing; %s", p.name, m.usage())
		}
	}
	return a, nil
}

// sortParams puts the parameters, given by position or by name, into the order of m.params.
func (m *method) sortParams(params json.RawMessage) ([]json.RawMessage, error) {
	given := make([]json.RawMessage, len(m.params))
	switch first(params) {
	case '[':
		var list []json.RawMessage
		if err := json.Unmarshal(params, &list); err != nil {
			return nil, m.paramError("%v", err)
		}
		if len(list) > len(m.params) {
			return nil, m.paramError("%s, got %d", m.usage(), len(list))
		}
		copy(given, list)
	case '{':
		var byName map[string]json.RawMessage
		if err := json.Unmarshal(params, &byName); err != nil {
			return nil, m.paramError("%v", err)
		}
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			i := m.index(name)
			if i < 0 {
				return nil, m.paramError("unknown parameter %q; %s",
					clip([]byte(name)), m.usage())
			}
			given[i] = byName[name]
		}
	}
	return given, nil
}

// value decodes one parameter. An error never shows the value of a blob.
func (m *method) value(p param, v json.RawMessage) (any, error) {
	switch p.typ {
	case integer:
		return m.integer(p, v)
	case str:
		return m.text(p, v)
	case blob:
		return m.blob(p, v)
	case texts:
		return m.texts(p, v)
	case anyID:
		if !validID(v) {
			return nil, m.paramError("%s %s: must be a string, an integer or null",
				p.name, clip(v))
		}
		return v, nil
	}
	panic("rpc: unknown parameter type")
}

func (m *method) integer(p param, v json.RawMessage) (any, error) {
	if !isInteger(v) {
		return nil, m.paramError("%s %s: must be an integer", p.name, clip(v))
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil || n < p.min || n > p.max {
		return nil, m.paramError("%s %s: must be between %d and %d", p.name, clip(v), p.min,
			p.max)
	}
	return n, nil
}

func (m *method) text(p param, v json.RawMessage) (any, error) {
	if first(v) != '"' {
		return nil, m.paramError("%s %s: must be a string", p.name, clip(v))
	}
	s := text(v)
	switch {
	case int64(len(s)) < p.min:
		return nil, m.paramError("%s: must not be empty", p.name)
	case int64(len(s)) > p.max:
		return nil, m.paramError("%s: has %d bytes, at most %d are allowed", p.name,
			len(s), p.max)
	case strings.ContainsRune(s, 0):
		return nil, m.paramError("%s %s: must not contain a NUL character", p.name, clip(v))
	}
	return s, nil
}

func (m *method) blob(p param, v json.RawMessage) (any, error) {
	if first(v) != '"' {
		return nil, m.paramError("%s: must be a base64 string", p.name)
	}
	encoded := text(v)
	data, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if strings.ContainsAny(encoded, "\r\n") { // the decoder would skip line breaks
		err = errors.New("it has line breaks")
	}
	if err != nil {
		return nil, m.paramError("%s: %v; it must be base64 with padding (RFC 4648 "+
			"section 4)", p.name, err)
	}
	if len(data) > wire.MaxBlob {
		return nil, m.paramError("%s: has %d bytes, at most %d are allowed", p.name,
			len(data), wire.MaxBlob)
	}
	return data, nil
}

func (m *method) texts(p param, v json.RawMessage) (any, error) {
	var list []*string
	wrong := first(v) != '[' || json.Unmarshal(v, &list) != nil || slices.Contains(list, nil)
	if wrong {
		return nil, m.paramError("%s %s: must be an array of strings", p.name, clip(v))
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = *s
	}
	return out, nil
}

func (m *method) index(name string) int {
	for i, p := range m.params {
		if p.name == name {
			return i
		}
	}
	return -1
}

// usage says which parameters the method takes, for errors.
func (m *method) usage() string {
	if len(m.params) == 0 {
		return "takes no parameters"
	}
	names := make([]string, len(m.params))
	for i, p := range m.params {
		names[i] = p.name
		if p.optional {
			names[i] += "?"
		}
	}
	s := "s"
	if len(names) == 1 {
		s = ""
	}
	return fmt.Sprintf("takes %d parameter%s (%s)", len(names), s, strings.Join(names, ", "))
}

func (m *method) paramError(format string, a ...any) error {
	return &session.Error{Kind: kind.Params, Op: m.name, Why: fmt.Sprintf(format, a...)}
}

// withMethod adds the method to an error that was made without it.
func (m *method) withMethod(err error) error {
	var e *session.Error
	if !errors.As(err, &e) {
		return &session.Error{Kind: kind.Internal, Op: m.name, Why: err.Error()}
	}
	named := *e
	named.Op = m.name
	return &named
}
