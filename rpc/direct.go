package rpc

import (
	"os"
	"slices"

	"tlsd/rpc/wire"
	"tlsd/session"
)

func hello(s *server, a args) (any, error) {
	if a[2] != nil {
		if err := s.sess.StartAt(a.handle(2)); err != nil {
			return nil, err
		}
	}
	t := s.sess.Timeouts
	h := wire.Hello{
		Version:      wire.Version,
		Capabilities: []string{},
		Server:       wire.Server{Name: "tlsd", Version: s.Version, PID: os.Getpid()},
		Timeouts: map[string]int64{
			"read":      t.Read.Milliseconds(),
			"write":     t.Write.Milliseconds(),
			"handshake": t.Handshake.Milliseconds(),
			"accept":    t.Accept.Milliseconds(),
		},
	}
	if list, _ := a[1].([]string); slices.Contains(list, wire.CapabilityData) {
		h.Capabilities = append(h.Capabilities, wire.CapabilityData)
	}
	return h, nil
}

func info(s *server, _ args) (any, error) {
	e := s.sess.Engine.Info()
	t, l := s.sess.Timeouts, s.sess.Limits
	out := wire.Info{
		Backend: s.sess.Engine.Backend(),
		Libssl: wire.Libssl{Path: e.Path, Libcrypto: e.Crypto, Version: e.Version,
			Pair: e.Pair},
		Trust: wire.Trust(e.Trust),
		Timeouts: map[string]int64{
			"connect":         t.Connect.Milliseconds(),
			"handshake":       t.Handshake.Milliseconds(),
			"acceptHandshake": t.AcceptHandshake.Milliseconds(),
			"accept":          t.Accept.Milliseconds(),
			"read":            t.Read.Milliseconds(),
			"write":           t.Write.Milliseconds(),
			"close":           t.Close.Milliseconds(),
			"answer":          s.AnswerTimeout.Milliseconds(),
			"sessionIdle":     s.IdleTimeout.Milliseconds(),
		},
		Limits: map[string]int64{
			"message":  int64(s.Limits.Message),
			"nesting":  int64(s.Limits.Nesting),
			"buffered": int64(s.Limits.Buffered),
			"blob":     wire.MaxBlob,
			"batch":    wire.MaxBatch,
			"handles":  int64(l.Handles),
			"calls":    int64(l.Calls),
			"pending":  int64(l.Pending),
		},
	}
	out.Confinement = s.Confinement
	out.Policy = s.sess.Policy.Keys()
	if e.Err != nil {
		out.Libssl.Error = e.Err.Error()
	}
	return out, nil
}

func wireStatus(st session.Status) wire.Status {
	w := wire.Status{Read: st.Read, Write: st.Write, Received: st.Received, Sent: st.Sent}
	if st.ReadError != nil {
		w.ReadError = wireError(st.ReadError)
	}
	if st.WriteError != nil {
		w.WriteError = wireError(st.WriteError)
	}
	return w
}
