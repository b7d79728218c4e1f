package rpc

import (
	"encoding/json"
	"math"
	"net"
	"time"

	"tlsd/rpc/wire"
	"tlsd/session"
)

// A method is a line of the table of methods. Dispatch, decoding, the OpenRPC document and the
// check of proto.md are made from the table.
type method struct {
	name      string
	doc       string
	params    []param
	result    schema
	pair      bool           // the parameter channel announces both ends of a pair
	makes     bool           // it makes a handle, whose number is taken when the call arrives
	maxAnswer func(args) int // the largest blob of the result, in bytes; nil: no blob

	// One of the two carries the call out. If both are there, direct is for a call without
	// parameters.
	call   func(*session.Session, args) *session.Call
	direct func(*server, args) (any, error) // at once, on the reading goroutine
}

// isDirect says whether direct carries out a call with these parameters.
func (m *method) isDirect(a args) bool { return m.direct != nil && (m.call == nil || a[0] == nil) }

// Parameters of several methods.
var (
	pHandle  = param{name: "handle", typ: integer, min: 1, max: math.MaxInt32, doc: "a connection handle"}
	pCtx     = param{name: "ctxHandle", typ: integer, min: 1, max: math.MaxInt32, doc: "a context handle"}
	pHost    = param{name: "host", typ: str, min: 1, max: 255, doc: "a name or an address"}
	pPort    = param{name: "port", typ: integer, min: 1, max: 65535, doc: "a TCP port"}
	pEither  = param{name: "handle", typ: integer, min: 1, max: math.MaxInt32, doc: "a connection handle or a context handle"}
	pPlace   = param{name: "host", typ: str, max: 255, doc: "an address of this machine, or nothing with the port 0: all places where the context listens"}
	pAnyPort = param{name: "port", typ: integer, min: 0, max: 65535, doc: "a TCP port"}
	pPair    = param{name: "channel", typ: integer, min: 1, max: 1,
		doc: "1: both ends of a pair of sockets come with the message (SCM_RIGHTS)"}
	pChannel = param{name: "channel", typ: integer, min: 0, max: 1, optional: true, doc: "1: a data channel comes with the message (SCM_RIGHTS)"}
)

func pPath(name string) param {
	return param{name: name, typ: str, min: 1, max: 4095, doc: "absolute path of a PEM file"}
}

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

var table = []method{
	{
		name: "tls.NewClient", doc: "Opens a TCP connection for a TLS client.",
		params: []param{pHost, pPort}, result: sHandle, makes: true,
		call: func(s *session.Session, a args) *session.Call { return s.NewClient(a.str(0), a.int(1)) },
	},
	{
		name: "tls.Handshake", doc: "Does the TLS handshake and verifies the server's certificate.",
		params: []param{pHandle, pChannel}, result: sZero,
		call: func(s *session.Session, a args) *session.Call { return s.Handshake(a.handle(0), a.channel(1)) },
	},
	{
		name: "tls.Write", doc: "Sends all of the data.",
		params: []param{pHandle, {name: "data", typ: blob, max: wire.MaxBlob, doc: "the bytes to send"}}, result: sCount,
		call: func(s *session.Session, a args) *session.Call { return s.Write(a.handle(0), a.blob(1)) },
	},
	{
		name: "tls.Read", doc: "Waits for data and returns what is there; nothing after the peer's close_notify.",
		params: []param{pHandle, {name: "maxBytes", typ: integer, min: 1, max: wire.MaxBlob, doc: "the most to return"}}, result: sBlob,
		maxAnswer: func(a args) int { return min(a.int(1), session.MaxRead) },
		call:      func(s *session.Session, a args) *session.Call { return s.Read(a.handle(0), a.int(1)) },
	},
	{
		name: "tls.Status", doc: "How the two directions of a connection stand, and their errors.",
		params: []param{pHandle}, result: sObject,
		call: func(s *session.Session, a args) *session.Call { return s.Status(a.handle(0)) },
	},
	{
		name: "tls.Flush", doc: "Waits until so many bytes of a connection have left.",
		params: []param{pHandle, {name: "bytes", typ: integer, min: 0, max: math.MaxInt64, doc: "the bytes sent since the handshake"}}, result: sZero,
		call: func(s *session.Session, a args) *session.Call { return s.Flush(a.handle(0), a[1].(int64)) },
	},
	{
		name: "tls.Shutdown", doc: "Sends close_notify behind what was written. Reading goes on.",
		params: []param{pHandle}, result: sZero,
		call: func(s *session.Session, a args) *session.Call { return s.Shutdown(a.handle(0)) },
	},
	{
		name: "tls.Close", doc: "Closes a connection and frees its handle.",
		params: []param{pHandle}, result: sZero,
		call: func(s *session.Session, a args) *session.Call { return s.Close(a.handle(0)) },
	},
	{
		name: "tls.SetInsecureSkipVerify", doc: "Turns the verification of the server's certificate off (1) or on (0).",
		params: []param{pHandle, {name: "on", typ: integer, min: 0, max: 1, doc: "1: do not verify"}}, result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetInsecureSkipVerify(a.handle(0), a.int(1) == 1)
		},
	},
	{
		name: "tls.NewServerContext", doc: "Loads a server's certificate chain and private key.",
		params: []param{pPath("certFile"), pPath("keyFile")},
		result: sHandle, makes: true,
		call: func(s *session.Session, a args) *session.Call { return s.NewServerContext(a.str(0), a.str(1)) },
	},
	{
		name: "tls.Accept", doc: "Waits for a client and its handshake.",
		params: []param{pCtx, pPlace, pAnyPort, pChannel}, result: sHandle, makes: true,
		call: func(s *session.Session, a args) *session.Call {
			return s.Accept(a.handle(0), a.str(1), a.int(2), a.channel(3))
		},
	},
	{
		name: "tls.CloseServerContext", doc: "Stops listening and frees a context.",
		params: []param{pCtx}, result: sZero,
		call: func(s *session.Session, a args) *session.Call { return s.CloseServerContext(a.handle(0)) },
	},
	{
		name: "tls.SetCaBundle", doc: "Sets the trust store of clients that are opened afterwards.",
		params: []param{{name: "path", typ: str, max: 4095, doc: "absolute path of a PEM file; nothing: the system's store"}}, result: sZero,
		call: func(s *session.Session, a args) *session.Call { return s.SetCaBundle(a.str(0)) },
	},
	{
		name: "tls.PeerCertSubject", doc: "The subject of the peer's certificate, or an empty string.",
		params: []param{pHandle}, result: sString,
		call: func(s *session.Session, a args) *session.Call { return s.PeerCertSubject(a.handle(0)) },
	},
	{
		name: "tls.SetTimeout", doc: "Bounds later waits on a handle: Handshake, Read and Write of a connection, Accept of a context; or later NewClients.",
		params: []param{{name: "handle", typ: integer, min: 0, max: math.MaxInt32, doc: "a connection handle or a context handle; 0: NewClient"},
			{name: "milliseconds", typ: integer, min: 0, max: math.MaxInt32, doc: "the bound; 0: tlsd's own timeouts"}}, result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetTimeout(a.handle(0), time.Duration(a.int(1))*time.Millisecond)
		},
	},
	{
		name: "tls.Backend", doc: `"openssl", or "stub" without a library.`,
		result: sString,
		call:   func(s *session.Session, _ args) *session.Call { return s.Backend() },
	},
	{
		name: "tls.Version", doc: "The library's version, or a connection's TLS version.",
		params: []param{{name: "handle", typ: integer, min: 1, max: math.MaxInt32, optional: true, doc: "a connection handle"}}, result: sString,
		call: func(s *session.Session, a args) *session.Call {
			if a[0] == nil {
				return s.LibraryVersion()
			}
			return s.ConnectionVersion(a.handle(0))
		},
	},
	{
		name: "tls.LastError", doc: "The message of the session's most recent error.",
		result: sString,
		call:   func(s *session.Session, _ args) *session.Call { return s.LastError() },
	},
	{
		name: "tls.Hello", doc: "Agrees on the protocol's version and on capabilities.",
		params: []param{
			{name: "version", typ: integer, min: 1, max: math.MaxInt32, doc: "the highest version that the client speaks"},
			{name: "capabilities", typ: texts, optional: true, doc: "what the client asks for"},
			{name: "firstHandle", typ: integer, min: 1, max: math.MaxInt32, optional: true, doc: "the number of the first handle"},
		},
		result: sObject,
		direct: hello,
	},
	{
		name: "tls.Info", doc: "Describes the library, the trust store, timeouts and limits; or one fact about a handle, as a string.",
		params: []param{
			{name: "handle", typ: integer, min: 1, max: math.MaxInt32, optional: true, doc: "a connection handle or a context handle"},
			{name: "name", typ: str, max: 64, optional: true, doc: "of the fact; nothing: all of them as a JSON object in a string"},
		},
		result: sObject,
		direct: info,
		call: func(s *session.Session, a args) *session.Call {
			name, _ := a[1].(string)
			return s.HandleInfo(a.handle(0), name)
		},
	},
	{
		name: "tls.SetOption", doc: "Sets an option of a connection before its handshake, or of a context for clients that come later.",
		params: []param{pEither, {name: "name", typ: str, min: 1, max: 64, doc: "of the option"},
			{name: "value", typ: str, max: 65535, doc: "as the option takes it"}}, result: sZero,
		call: func(s *session.Session, a args) *session.Call { return s.SetOption(a.handle(0), a.str(1), a.str(2)) },
	},
	{
		name: "tls.SetCertificate", doc: "Replaces a certificate of a context, or gives a client one.",
		params: []param{pEither, {name: "serverName", typ: str, max: 255, doc: "a name, or *. and a name, that clients ask for; nothing: any"},
			pPath("certFile"), pPath("keyFile")}, result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetCertificate(a.handle(0), a.str(1), a.str(2), a.str(3))
		},
	},
	{
		name: "tls.Listen", doc: "Binds an address for a context's clients, and returns the port.",
		params: []param{pCtx, pHost, {name: "port", typ: integer, min: 0, max: 65535, doc: "a TCP port; 0: any free one"}}, result: sCount,
		call: func(s *session.Session, a args) *session.Call { return s.Listen(a.handle(0), a.str(1), a.int(2)) },
	},
	{
		name: "tls.ReadPlain", doc: "Reads before the handshake, in plain text.",
		params: []param{pHandle, {name: "maxBytes", typ: integer, min: 1, max: wire.MaxBlob, doc: "the most to return"}}, result: sBlob,
		maxAnswer: func(a args) int { return min(a.int(1), session.MaxRead) },
		call:      func(s *session.Session, a args) *session.Call { return s.ReadPlain(a.handle(0), a.int(1)) },
	},
	{
		name: "tls.WritePlain", doc: "Sends before the handshake, in plain text.",
		params: []param{pHandle, {name: "data", typ: blob, max: wire.MaxBlob, doc: "the bytes to send"}}, result: sCount,
		call: func(s *session.Session, a args) *session.Call { return s.WritePlain(a.handle(0), a.blob(1)) },
	},
	{
		name: "tls.Wait",
		doc:  "Waits for a watched handle whose Read or Accept would not wait; 0: none in time.",
		params: []param{{name: "milliseconds", typ: integer,
			min: math.MinInt32, max: math.MaxInt32, doc: "the bound; negative: none"}},
		result: sReady,
		call: func(s *session.Session, a args) *session.Call {
			return s.Wait(time.Duration(a.int(0)) * time.Millisecond)
		},
	},
	{
		name:   "tls.Signal",
		doc:    "Keeps the first of two sockets readable while a client waits.",
		params: []param{pCtx, pPair}, result: sZero, pair: true,
		call: func(s *session.Session, a args) *session.Call {
			ends := a[1].([2]*net.UnixConn)
			return s.Signal(a.handle(0), ends[0], ends[1])
		},
	},
	{
		name: "$/cancelRequest", doc: "Ends a call in flight with kind cancelled.",
		params: []param{{name: "id", typ: anyID, doc: "the id of the call"}}, result: sNull,
		direct: func(s *server, a args) (any, error) {
			s.cancel(a[0].(json.RawMessage))
			return nil, nil
		},
	},
}

// handleOf returns the handle that a call names, or 0.
func (m *method) handleOf(a args) int32 {
	if len(m.params) == 0 || m.params[0].name != pHandle.name && m.params[0].name != pCtx.name || a[0] == nil {
		return 0
	}
	return int32(a.handle(0))
}
