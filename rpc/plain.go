package rpc

import (
	"bytes"
	"math"
	"slices"
)

// A shorter way to the same end for requests that are written as simply as possible, as the plugin writes them:
//
//	{"jsonrpc":"2.0","id":ID,"method":"METHOD","params":[PARAMETER,…]}
//
// without blanks, ID a number as in hotCall, each PARAMETER such a number or a string of printable ASCII without
// quotation marks and backslashes. One pass over the line gives the call with its parameters decoded. What is
// written differently, and what is not as the method's table has it, takes the long way, which
// does the same and has the errors.

var (
	plainMethod = []byte(`,"method":"`)
	plainParams = []byte(`","params":[`)
)

// parsePlain takes such a request apart; nil if it is none. The call keeps nothing of the line.
func parsePlain(line []byte) *call {
	rest, ok := bytes.CutPrefix(line, hotStart)
	if !ok {
		return nil
	}
	_, after, ok := hotNumber(rest)
	if !ok {
		return nil
	}
	id := rest[:len(rest)-len(after)]
	if rest, ok = bytes.CutPrefix(after, plainMethod); !ok {
		return nil
	}
	name, rest, ok := bytes.Cut(rest, plainParams)
	if !ok {
		return nil
	}
	m := methods[string(name)]
	if m == nil || m.call == nil {
		return nil
	}
	a, rest, ok := m.plainArgs(rest)
	if !ok || !bytes.Equal(rest, hotEnd) {
		return nil
	}
	return &call{id: slices.Clone(id), method: m.name, args: a}
}

// plainArgs decodes parameters up to the bracket behind them.
func (m *method) plainArgs(rest []byte) (a args, _ []byte, ok bool) {
	a = make(args, len(m.params))
	for i := range m.params {
		p := &m.params[i]
		if len(rest) > 0 && rest[0] == ']' {
			break // the others must be optional
		}
		if i > 0 {
			if rest, ok = bytes.CutPrefix(rest, []byte{','}); !ok {
				return nil, nil, false
			}
		}
		switch p.typ {
		case integer:
			n := 0
			if n, rest, ok = hotNumber(rest); !ok || int64(n) < p.min || int64(n) > p.max {
				return nil, nil, false
			}
			a[i] = int64(n)
		case str:
			n := plainString(rest)
			if int64(n) < p.min || int64(n) > p.max {
				return nil, nil, false
			}
			a[i], rest = string(rest[1:1+n]), rest[n+2:]
		default:
			return nil, nil, false
		}
	}
	for i := range m.params {
		if a[i] == nil && !m.params[i].optional {
			return nil, nil, false
		}
	}
	rest, ok = bytes.CutPrefix(rest, []byte{']'})
	return a, rest, ok
}

// plainString is the length of the string that b begins with, without its quotation marks; if it begins with none that is plain,
// less than any string has.
func plainString(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return math.MinInt
	}
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == '"':
			return i - 1
		case b[i] < ' ' || b[i] > '~' || b[i] == '\\':
			return math.MinInt
		}
	}
	return math.MinInt
}
