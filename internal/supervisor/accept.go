package supervisor

import (
	"context"
	"errors"
	"net"
	"time"

	"go.uber.org/zap"
)

// This file accepts connections from the socket. If accept(2) fails, tlsd pauses, and tries again.
// After each further failure the pause is longer, up to a second.

// accept accepts connections until Run sets the socket's deadline to the past.
func (s *Supervisor) accept(life context.Context) {
	const longest = time.Second
	var pause time.Duration
	for {
		conn, err := s.Socket.AcceptUnix()
		switch {
		case err == nil:
			if pause > 0 {
				s.Log.Info("connections can be accepted again")
				pause = 0
			}
			s.startAdmit(life, conn)
		case isTimeout(err) || errors.Is(err, net.ErrClosed):
			return
		default:
			if pause == 0 {
				s.Log.Error("connections cannot be accepted; tlsd keeps trying",
					zap.Error(err))
			}
			pause = min(max(2*pause, 5*time.Millisecond), longest)
			select {
			case <-time.After(pause):
			case <-life.Done():
				return
			}
		}
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// acceptRest accepts the callers that connected before Run removed the socket's file. Otherwise
// they would be lost. If systemd made the socket, the next daemon accepts these callers instead.
func (s *Supervisor) acceptRest(life context.Context) {
	if s.Socket.lock == nil {
		return
	}
	for {
		conn, err := s.Socket.acceptWaiting()
		if err != nil {
			s.Log.Warn("waiting callers are lost", zap.Error(err))
		}
		if conn == nil {
			return
		}
		s.startAdmit(life, conn)
	}
}

// startAdmit starts the method admit for a connection. If the caller has hung up already,
// startAdmit only counts the caller and closes the connection. So a flood of such connections
// delays no other caller.
func (s *Supervisor) startAdmit(life context.Context, conn *net.UnixConn) {
	if hasHungUp(conn) {
		s.countRefusal(refusedLeft)
		conn.Close()
		return
	}
	s.mu.Lock()
	s.active++
	s.mu.Unlock()
	s.admitting.Go(func() { s.admit(life, conn) })
}
