package session

import (
	"net"
	"time"

	"tlsd/internal/kind"
)

// Status says how the two directions of a connection stand.
type Status struct {
	Read, Write           string
	Received, Sent        int64
	ReadError, WriteError *Error
}

func (s *Session) HandshakeOver(h Handle, ch *net.UnixConn) *Call {
	if ch != nil {
		ch.Close()
	}
	return s.Handshake(h)
}

func (s *Session) AcceptOver(h Handle, host string, port int, ch *net.UnixConn) *Call {
	if ch != nil {
		ch.Close()
	}
	return s.Accept(h, host, port)
}

func (s *Session) notYet(op string, h Handle) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuse(op, h, fail(kind.Internal, "not yet"))
}

func (s *Session) Status(h Handle) *Call             { return s.notYet("tls.Status", h) }
func (s *Session) Flush(h Handle, bytes int64) *Call { return s.notYet("tls.Flush", h) }
func (s *Session) Shutdown(h Handle) *Call           { return s.notYet("tls.Shutdown", h) }
func (s *Session) LastMoved() time.Time              { return time.Time{} }
