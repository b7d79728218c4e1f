package rpc

import "tlsd/session"

// A method is a line of the table of methods. Dispatch, decoding, the OpenRPC document and the
// check of proto.md are made from the table.
type method struct {
	name      string
	doc       string
	params    []param
	result    schema
	pair      bool           // the parameter "channel" announces two sockets, and not one
	makes     bool           // a call makes a handle; its number is fixed when the call arrives
	maxAnswer func(args) int // the largest blob of the result, in bytes; nil: no blob

	// The function for a call of the method is in one of these fields. If both are set,
	// direct() is for calls without the first parameter, and call() is for all others.
	call   func(*session.Session, args) *session.Call
	direct func(*server, args) (any, error) // at once, on the reading goroutine
}

// isDirect says whether m.direct carries out a call with these parameters (see method).
func (m *method) isDirect(a args) bool { return m.direct != nil && (m.call == nil || a[0] == nil) }

// methods are the methods of the table and rpc.discover, by name.
var methods = func() map[string]*method {
	m := map[string]*method{}
	for i := range table {
		m[table[i].name] = &table[i]
	}
	// rpc.discover describes the table, so it cannot be part of the table's initial value.
	d := discover
	d.direct = func(s *server, _ args) (any, error) { return openRPC(s.Version), nil }
	m[d.name] = &d
	return m
}()

// handleOf returns the handle that a call names, or 0.
func (m *method) handleOf(a args) int32 {
	if len(m.params) == 0 || a[0] == nil {
		return 0
	}
	switch m.params[0].name {
	case pHandle.name, pCtx.name:
		return int32(a.handle(0))
	}
	return 0
}
