package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/plain"
	"tlsd/internal/sockets"
	"tlsd/rpc/wire"
)

// Daemon is the daemon that the server shows and acts on. Several goroutines call its methods at
// the same time. An error that is no *Error is of kind internal.
type Daemon interface {
	Sessions(context.Context) []Session
	Session(ctx context.Context, number uint64) (Session, error)
	End(ctx context.Context, number uint64, reason string) error
	LogLevel(level string) (string, error) // "" changes nothing
	Drain() (sessions int)
	Health() Health
	Metrics() []Family
}

// A Client is the process that has connected, as the kernel describes it.
type Client struct {
	UID uint32
	PID int32
}

// Server serves an admin socket. All fields are required.
type Server struct {
	Listener *net.UnixListener
	Daemon   Daemon
	// Ordered is called for each request that changes something (end, drain, a new log level),
	// before it is carried out. text describes the request for people.
	Ordered func(who Client, method, text string)
	// Denied is called for each client that may not use the socket.
	Denied func(who Client)
}

// acceptPause is the pause after an error of accept(2).
const acceptPause = 100 * time.Millisecond

// Run serves until ctx is done. When it returns, the listener is closed and all clients are gone.
func (s *Server) Run(ctx context.Context) {
	var clients sync.WaitGroup
	defer clients.Wait()
	stop := context.AfterFunc(ctx, func() { s.Listener.Close() })
	defer stop()
	defer s.Listener.Close()
	slots := make(chan struct{}, MaxClients)
	for {
		conn, err := s.Listener.AcceptUnix()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return
		default: // for example, no descriptor is free
			select {
			case <-time.After(acceptPause):
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case slots <- struct{}{}:
			clients.Go(func() {
				defer func() { <-slots }()
				s.serve(ctx, conn)
			})
		default:
			const text = "%d clients use the admin socket, which is the limit; " +
				"try again later"
			s.refuse(conn, Fail(kind.Limit, text, MaxClients))
			conn.Close()
		}
	}
}

// refuse tells a client why it is not served. A call of refuse does not make Run wait, because Run
// refuses only new connections, whose buffers have room.
func (s *Server) refuse(conn *net.UnixConn, why error) {
	_ = wire.NewWriter(conn, answerTime, nil).Write(answer(nil, nil, why))
}

// serve serves one client. It closes the connection.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	peer, err := sockets.PeerOf(conn)
	if err != nil {
		s.refuse(conn, err)
		return
	}
	who := Client{UID: peer.UID, PID: int32(peer.PID)}
	if own := uint32(os.Geteuid()); who.UID != 0 && who.UID != own {
		s.Denied(who)
		s.refuse(conn, Fail(kind.Denied,
			"user %d may not use the admin socket, which serves root and user %d",
			who.UID, own))
		return
	}
	in, out := wire.NewReader(conn, MaxRequest), wire.NewWriter(conn, answerTime, nil)
	for {
		conn.SetReadDeadline(time.Now().Add(requestTime))
		line, err := in.Line()
		if errors.Is(err, wire.ErrTooLong) {
			s.refuse(conn, Fail(kind.Params, "the request has more than %d bytes",
				MaxRequest))
		}
		if err != nil || out.Write(s.handle(ctx, who, line)) != nil {
			return
		}
	}
}

// handle carries out one request and gives the answer to it.
func (s *Server) handle(ctx context.Context, who Client, line []byte) []byte {
	var req wire.Request
	if err := json.Unmarshal(line, &req); err != nil {
		return answer(nil, nil, Fail(kind.Params, "the request cannot be read: %v", err))
	}
	if req.JSONRPC != "2.0" || req.ID == nil {
		return answer(req.ID, nil, Fail(kind.Params,
			`the request is not JSON-RPC 2.0: want "jsonrpc":"2.0" and an id`))
	}
	result, err := s.carryOut(ctx, who, req)
	return answer(req.ID, result, err)
}

func (s *Server) carryOut(ctx context.Context, who Client, req wire.Request) (any, error) {
	switch req.Method {
	case MethodSessions:
		return s.Daemon.Sessions(ctx), nil
	case MethodSession:
		var p SessionParams
		if err := read(req.Params, &p); err != nil {
			return nil, err
		}
		return s.Daemon.Session(ctx, p.Number)
	case MethodEnd:
		var p EndParams
		if err := read(req.Params, &p); err != nil {
			return nil, err
		}
		if p.Reason == "" || len(p.Reason) > MaxReason {
			return nil, Fail(kind.Params,
				"the reason has %d bytes; want 1 to %d bytes: the session's "+
					"script gets the reason in an error",
				len(p.Reason), MaxReason)
		}
		s.Ordered(who, req.Method, fmt.Sprintf("session %d: %s", p.Number,
			plain.Text(p.Reason, MaxReason)))
		return Ended{p.Number}, s.Daemon.End(ctx, p.Number, p.Reason)
	case MethodLogLevel:
		var p LogLevelParams
		if err := read(req.Params, &p); err != nil {
			return nil, err
		}
		if !slices.Contains([]string{"", "debug", "info", "warn", "error"}, p.Level) {
			return nil, Fail(kind.Params,
				"there is no level %.40q; want one of debug, info, warn, error",
				p.Level)
		}
		if p.Level != "" {
			s.Ordered(who, req.Method, p.Level)
		}
		level, err := s.Daemon.LogLevel(p.Level)
		return LogLevel{level}, err
	case MethodDrain:
		s.Ordered(who, req.Method, "")
		return Draining{s.Daemon.Drain()}, nil
	case MethodHealth:
		return s.Daemon.Health(), nil
	case MethodMetrics:
		return s.Daemon.Metrics(), nil
	}
	return nil, Fail(kind.Params, "there is no method %.40q", req.Method)
}

// read reads the parameters, a JSON object.
func read(params json.RawMessage, into any) error {
	if len(params) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(params))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return Fail(kind.Params, "the parameters cannot be read: %v", err)
	}
	return nil
}

// answer makes the line that answers a request.
func answer(id json.RawMessage, result any, err error) []byte {
	res := wire.Response{JSONRPC: "2.0", ID: id}
	if err == nil {
		res.Result, err = encode(result)
	}
	if err != nil {
		k := kind.Internal
		if e := new(Error); errors.As(err, &e) {
			k = e.Kind
		}
		res.Result = nil
		res.Error = &wire.Error{Code: wire.Codes[k], Message: err.Error(),
			Data: &wire.ErrorData{Kind: k}}
	}
	line, err := encode(res)
	if err != nil || len(line) > MaxAnswer {
		return answer(nil, nil, Fail(kind.Limit, "the answer has more than %d bytes",
			MaxAnswer))
	}
	return line
}

// encode makes JSON without escapes for HTML. Such escapes make a text up to six times as long.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
