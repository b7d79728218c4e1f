package rpc

import (
	"math"

	"tlsd/rpc/wire"
)

// These are the parameters of all methods. Each has its range and its text for rpc.discover. Some
// have the same name, but another text or range.

// Handles.
var (
	pHandle      = handleParam("handle", "a connection handle")
	pCtx         = handleParam("ctxHandle", "a context handle")
	pEither      = handleParam("handle", "a connection handle or a context handle")
	pFirstHandle = handleParam("firstHandle", "the number of the first handle").orNone()
	pTimed       = integerParam("handle", 0, math.MaxInt32,
		"a connection handle or a context handle; 0: later calls of NewClient")
)

// Addresses.
var (
	pHost  = stringParam("host", 1, 255, "a name or an address")
	pPort  = integerParam("port", 1, 65535, "a TCP port")
	pPlace = stringParam("host", 0, 255, "an address of this machine; "+
		"empty, with port 0: all addresses where the context listens")
	pAnyPort    = integerParam("port", 0, 65535, "a TCP port")
	pListenPort = integerParam("port", 0, 65535, "a TCP port; 0: any free one")
	pServerName = stringParam("serverName", 0, 255,
		"the name that clients ask for, or *. and a name; empty: any name")
)

// Files.
var (
	pCertFile = stringParam("certFile", 1, maxPath, "absolute path of a PEM file")
	pKeyFile  = stringParam("keyFile", 1, maxPath, "absolute path of a PEM file")
	pBundle   = stringParam("path", 0, maxPath,
		"absolute path of a PEM file; empty: the system's store")
)

// maxPath is the longest path of Linux, in bytes: PATH_MAX, less its NUL.
const maxPath = 4095

// Bytes and data channels.
var (
	pData     = param{name: "data", typ: blob, max: wire.MaxBlob, doc: "the bytes to send"}
	pMaxBytes = integerParam("maxBytes", 1, wire.MaxBlob,
		"the largest number of bytes to return")
	pSent = integerParam("bytes", 0, math.MaxInt64,
		"the number of bytes that must have left, counted from the handshake")
	pChannel = integerParam("channel", 0, 1,
		"1: a data channel comes with the message (SCM_RIGHTS)").orNone()
	pPair = integerParam("channel", 1, 1,
		"1: both ends of a pair of sockets come with the message (SCM_RIGHTS)")
)

// Settings and facts.
var (
	pSkip   = integerParam("on", 0, 1, "1: do not verify")
	pOption = stringParam("name", 1, 64, "the name of the option")
	pValue  = stringParam("value", 0, 65535, "the value of the option")
	pFact   = stringParam("name", 0, 64,
		"the name of the fact; empty: all facts, as a JSON object in a string").orNone()
	pTimeout = integerParam("milliseconds", 0, math.MaxInt32,
		"the timeout; 0: tlsd's own timeouts")
	pPatience = integerParam("milliseconds", math.MinInt32, math.MaxInt32,
		"the timeout; negative: none")
)

// The session.
var (
	pVersion = integerParam("version", 1, math.MaxInt32,
		"the highest version that the client speaks")
	pCapabilities = param{name: "capabilities", typ: texts, optional: true,
		doc: "the capabilities that the client asks for"}
	pID = param{name: "id", typ: anyID, doc: "the id of the call"}
)

// integerParam makes a parameter that is an integer from smallest to largest.
func integerParam(name string, smallest, largest int64, doc string) param {
	return param{name: name, typ: integer, min: smallest, max: largest, doc: doc}
}

// handleParam makes a parameter that is the number of a handle.
func handleParam(name, doc string) param { return integerParam(name, 1, math.MaxInt32, doc) }

// stringParam makes a parameter that is a string of shortest to longest bytes.
func stringParam(name string, shortest, longest int64, doc string) param {
	return param{name: name, typ: str, min: shortest, max: longest, doc: doc}
}

// orNone returns the parameter as one that may be left out.
func (p param) orNone() param {
	p.optional = true
	return p
}
