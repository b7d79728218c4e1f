package rpc

import (
	"encoding/json"
	"net"
	"time"

	"tlsd/session"
)

// table has all methods but rpc.discover, in the order of the document that rpc.discover returns.
// The first element of args is the value of the first parameter in params, and so on. paramtable.go
// has the parameters, and openrpc.go the results.
var table = []method{
	{
		name:   "tls.NewClient",
		doc:    "Opens a TCP connection for a TLS client.",
		params: []param{pHost, pPort},
		result: sHandle,
		makes:  true,
		call: func(s *session.Session, a args) *session.Call {
			return s.NewClient(a.str(0), a.int(1))
		},
	},
	{
		name:   "tls.Handshake",
		doc:    "Does the TLS handshake and verifies the server's certificate.",
		params: []param{pHandle, pChannel},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.Handshake(a.handle(0), a.channel(1))
		},
	},
	{
		name:   "tls.Write",
		doc:    "Sends all of the data.",
		params: []param{pHandle, pData},
		result: sCount,
		call: func(s *session.Session, a args) *session.Call {
			return s.Write(a.handle(0), a.blob(1))
		},
	},
	{
		name: "tls.Read",
		doc: "Waits for data and returns what is there; " +
			"nothing after the peer's close_notify.",
		params:    []param{pHandle, pMaxBytes},
		result:    sBlob,
		maxAnswer: func(a args) int { return min(a.int(1), session.MaxRead) },
		call: func(s *session.Session, a args) *session.Call {
			return s.Read(a.handle(0), a.int(1))
		},
	},
	{
		name:   "tls.Status",
		doc:    "The state of the two directions of a connection, and their errors.",
		params: []param{pHandle},
		result: sObject,
		call: func(s *session.Session, a args) *session.Call {
			return s.Status(a.handle(0))
		},
	},
	{
		name:   "tls.Flush",
		doc:    "Waits until this number of bytes has left for the peer.",
		params: []param{pHandle, pSent},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.Flush(a.handle(0), a[1].(int64))
		},
	},
	{
		name:   "tls.Shutdown",
		doc:    "Sends close_notify after all bytes that were written. Reading goes on.",
		params: []param{pHandle},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.Shutdown(a.handle(0))
		},
	},
	{
		name:   "tls.Close",
		doc:    "Closes a connection and frees its handle.",
		params: []param{pHandle},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.Close(a.handle(0))
		},
	},
	{
		name:   "tls.SetInsecureSkipVerify",
		doc:    "Turns the verification of the server's certificate off (1) or on (0).",
		params: []param{pHandle, pSkip},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetInsecureSkipVerify(a.handle(0), a.int(1) == 1)
		},
	},
	{
		name:   "tls.NewServerContext",
		doc:    "Loads a server's certificate chain and private key.",
		params: []param{pCertFile, pKeyFile},
		result: sHandle,
		makes:  true,
		call: func(s *session.Session, a args) *session.Call {
			return s.NewServerContext(a.str(0), a.str(1))
		},
	},
	{
		name:   "tls.Accept",
		doc:    "Waits for a client and its handshake.",
		params: []param{pCtx, pPlace, pAnyPort, pChannel},
		result: sHandle,
		makes:  true,
		call: func(s *session.Session, a args) *session.Call {
			return s.Accept(a.handle(0), a.str(1), a.int(2), a.channel(3))
		},
	},
	{
		name:   "tls.CloseServerContext",
		doc:    "Stops listening and frees a context.",
		params: []param{pCtx},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.CloseServerContext(a.handle(0))
		},
	},
	{
		name:   "tls.SetCaBundle",
		doc:    "Sets the trust store of clients that are opened afterwards.",
		params: []param{pBundle},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetCaBundle(a.str(0))
		},
	},
	{
		name:   "tls.PeerCertSubject",
		doc:    "The subject of the peer's certificate, or an empty string.",
		params: []param{pHandle},
		result: sString,
		call: func(s *session.Session, a args) *session.Call {
			return s.PeerCertSubject(a.handle(0))
		},
	},
	{
		name: "tls.SetTimeout",
		doc: "Sets the timeout of later calls: of Handshake, Read and Write on a " +
			"connection, of Accept on a context, or of NewClient.",
		params: []param{pTimed, pTimeout},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetTimeout(a.handle(0), time.Duration(a.int(1))*time.Millisecond)
		},
	},
	{
		name:   "tls.Backend",
		doc:    `"openssl", or "stub" without a library.`,
		result: sString,
		call: func(s *session.Session, _ args) *session.Call {
			return s.Backend()
		},
	},
	{
		name:   "tls.Version",
		doc:    "The library's version, or a connection's TLS version.",
		params: []param{pHandle.orNone()},
		result: sString,
		call: func(s *session.Session, a args) *session.Call {
			if a[0] == nil {
				return s.LibraryVersion()
			}
			return s.ConnectionVersion(a.handle(0))
		},
	},
	{
		name:   "tls.LastError",
		doc:    "The message of the session's most recent error.",
		result: sString,
		call: func(s *session.Session, _ args) *session.Call {
			return s.LastError()
		},
	},
	{
		name:   "tls.Hello",
		doc:    "Agrees on the protocol's version and on capabilities.",
		params: []param{pVersion, pCapabilities, pFirstHandle},
		result: sObject,
		direct: hello,
	},
	{
		name: "tls.Info",
		doc: "Describes the library, the trust store, timeouts and limits; " +
			"or one fact about a handle, as a string.",
		params: []param{pEither.orNone(), pFact},
		result: sObject,
		direct: info,
		call: func(s *session.Session, a args) *session.Call {
			name, _ := a[1].(string)
			return s.HandleInfo(a.handle(0), name)
		},
	},
	{
		name: "tls.SetOption",
		doc: "Sets an option of a connection before its handshake, " +
			"or of a context for clients that come later.",
		params: []param{pEither, pOption, pValue},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetOption(a.handle(0), a.str(1), a.str(2))
		},
	},
	{
		name:   "tls.SetCertificate",
		doc:    "Replaces a certificate of a context, or sets the certificate of a client.",
		params: []param{pEither, pServerName, pCertFile, pKeyFile},
		result: sZero,
		call: func(s *session.Session, a args) *session.Call {
			return s.SetCertificate(a.handle(0), a.str(1), a.str(2), a.str(3))
		},
	},
	{
		name:   "tls.Listen",
		doc:    "Binds an address for a context's clients, and returns the port.",
		params: []param{pCtx, pHost, pListenPort},
		result: sCount,
		call: func(s *session.Session, a args) *session.Call {
			return s.Listen(a.handle(0), a.str(1), a.int(2))
		},
	},
	{
		name:      "tls.ReadPlain",
		doc:       "Reads plain text, before the handshake.",
		params:    []param{pHandle, pMaxBytes},
		result:    sBlob,
		maxAnswer: func(a args) int { return min(a.int(1), session.MaxRead) },
		call: func(s *session.Session, a args) *session.Call {
			return s.ReadPlain(a.handle(0), a.int(1))
		},
	},
	{
		name:   "tls.WritePlain",
		doc:    "Sends plain text, before the handshake.",
		params: []param{pHandle, pData},
		result: sCount,
		call: func(s *session.Session, a args) *session.Call {
			return s.WritePlain(a.handle(0), a.blob(1))
		},
	},
	{
		name: "tls.Wait",
		doc: "Waits for a watched handle whose Read or Accept would not wait; " +
			"0: none in time.",
		params: []param{pPatience},
		result: sReady,
		call: func(s *session.Session, a args) *session.Call {
			return s.Wait(time.Duration(a.int(0)) * time.Millisecond)
		},
	},
	{
		name:   "tls.Signal",
		doc:    "Keeps the first of two sockets readable while a client waits.",
		params: []param{pCtx, pPair},
		result: sZero,
		pair:   true,
		call: func(s *session.Session, a args) *session.Call {
			ends := a[1].([2]*net.UnixConn)
			return s.Signal(a.handle(0), ends[0], ends[1])
		},
	},
	{
		name:   "$/cancelRequest",
		doc:    "Ends a call in flight with kind cancelled.",
		params: []param{pID},
		result: sNull,
		direct: func(s *server, a args) (any, error) {
			s.cancel(a[0].(json.RawMessage))
			return nil, nil
		},
	},
}
