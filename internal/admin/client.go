package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"tlsd/rpc/wire"
)

// DefaultSocket is the admin socket of the system's tlsd.
const DefaultSocket = "/run/tlsd/admin.sock"

// Ask connects to an admin socket, makes one request, and decodes the answer into *result. params
// may be nil. If the daemon answers with an error, Ask returns a *wire.Error. Any other error means
// that there was no usable answer.
func Ask(ctx context.Context, path, method string, params, result any) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := exchange(conn, method, params, result); err != nil {
		if why := context.Cause(ctx); why != nil {
			return why
		}
		return err
	}
	return nil
}

func exchange(conn net.Conn, method string, params, result any) error {
	req := wire.Request{JSONRPC: "2.0", ID: json.RawMessage("1"), Method: method}
	var err error
	if params != nil {
		if req.Params, err = json.Marshal(params); err != nil {
			return err
		}
	}
	line, err := json.Marshal(req)
	if err != nil {
		return err
	}
	// If the server refuses this client before the client has written, the write may fail
	// although an answer is there. So a failed write does not prevent the read.
	sent := wire.NewWriter(conn, 0, nil).Write(line)
	text, err := wire.NewReader(conn, MaxAnswer).Line()
	if err != nil {
		if sent != nil {
			err = sent
		}
		return fmt.Errorf("no answer: %w", err)
	}
	var res wire.Response
	if err := json.Unmarshal(text, &res); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	if res.Error != nil {
		return res.Error
	}
	if err := json.Unmarshal(res.Result, result); err != nil {
		return fmt.Errorf("the result cannot be read: %w", err)
	}
	return nil
}
