package client

import (
	"context"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
)

// This file has the calls on a connection before its handshake, and on a server context: options,
// certificates, addresses to listen on, and plain text. It also has the facts about a handle.

// SetOption sets an option of a connection, before the handshake. Or it sets an option of a server
// context, for clients that come later. If the name or the value is unknown, the error has the kind
// "params", and lists the known ones. In the options ca and client-ca, a relative path begins at
// this process's working directory.
func (c *Client) SetOption(ctx context.Context, h Handle, name, value string) error {
	const method = "tls.SetOption"
	if value != "" && (name == "ca" || name == "client-ca") {
		var err error
		if value, err = absolute(method, value); err != nil {
			return err
		}
	}
	return c.Call(ctx, method, []any{h, name, value}, nil)
}

// HandleInfo returns one fact about a connection or a server context. If the fact does not apply,
// the result is "". If the name is "", HandleInfo returns all facts, as one JSON object. Before the
// handshake of a connection, only the facts peer-address and local-address are known.
func (c *Client) HandleInfo(ctx context.Context, h Handle, name string) (string, error) {
	return call[string](ctx, c, "tls.Info", h, name)
}

// SetCertificate reads and checks a certificate chain and its key from PEM files. Relative paths
// begin at this process's working directory. On an error the old certificate stays.
//
//   - On a connection, this side shows the certificate to the server, and serverName must be "".
//   - On a server context with serverName "", the certificate replaces the context's own.
//   - On a server context with another serverName ("example.com" or "*.example.com"), the
//     certificate is for clients that ask for this name.
func (c *Client) SetCertificate(ctx context.Context, h Handle,
	serverName, certFile, keyFile string) error {
	const method = "tls.SetCertificate"
	cert, err := absolute(method, certFile)
	if err != nil {
		return err
	}
	key, err := absolute(method, keyFile)
	if err != nil {
		return err
	}
	return c.Call(ctx, method, []any{h, serverName, cert, key}, nil)
}

// Listen binds an address of this machine (host) and a port (0 to 65535) for the clients of a
// server context. It returns the port. Port 0 takes any free port. Accept with the host "" and the
// port 0 takes clients from all addresses of the context.
func (c *Client) Listen(ctx context.Context, ctxHandle Handle, host string, port int) (int, error) {
	return call[int](ctx, c, "tls.Listen", ctxHandle, host, port)
}

// ReadPlain waits for plain text of a connection before its handshake. It returns what is there: 1
// to maxBytes bytes, or none if the peer has ended its direction. Nothing is read ahead. maxBytes
// is 1 to 16777216.
func (c *Client) ReadPlain(ctx context.Context, h Handle, maxBytes int) ([]byte, error) {
	return call[[]byte](ctx, c, "tls.ReadPlain", h, maxBytes)
}

// WritePlain sends all of data, 0 to 16 MiB, as plain text before the handshake, or fails. It
// returns len(data).
func (c *Client) WritePlain(ctx context.Context, h Handle, data []byte) (int, error) {
	const method = "tls.WritePlain"
	if len(data) > wire.MaxBlob {
		return 0, newError(kind.Params, nil,
			"%d bytes of data; at most %d are possible in one call", len(data),
			wire.MaxBlob).forMethod(method)
	}
	if data == nil {
		data = []byte{}
	}
	return call[int](ctx, c, method, h, data)
}
