package openssl

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Resumption by clients. A session in this file is a TLS session. With TLS 1.3 a server can send
// sessions at any time after the handshake. OpenSSL calls keepSession for each new session. After a
// stay in the library, the sessions that came during the stay are put into the connection's
// SessionCache. The rules:
//
//   - A connection offers a session only if the session was made by a connection with the same
//     settings: see sessionKey.
//   - A resumed connection is not verified again. The session keeps the result and the certificates
//     of the full handshake, which was verified under the same settings. Pins are checked again.
//   - A session is not offered later than an hour after the full handshake that has verified the
//     server. If a resumed connection gets new sessions, the hour does not begin anew. Otherwise a
//     chain of resumptions would never verify the server again.
//   - No two handshakes offer the same session at the same time. With TLS 1.3 a session is offered
//     only once (RFC 8446 appendix C.4).
//   - A connection whose handshake fails leaves nothing in the cache.

const (
	mostSessions = 64 // the most sessions in a cache
	// mostOfOneKey is the most sessions of one sessionKey in a cache. A connection has at most
	// as many new sessions that are not in the cache yet.
	mostOfOneKey   = 4
	oldestSession  = time.Hour // an older session is not offered
	keepsReference = 1         // what keepSession returns if it keeps OpenSSL's reference
)

// A SessionCache keeps TLS sessions of clients. Later clients with the same settings can resume
// them. The zero value is an empty cache. The number of sessions and their age are limited. Only
// connections of one Library may use the same cache. Call Free when the cache is no longer needed.
type SessionCache struct {
	// mu guards the fields below. The methods add and take lock mu while they are inside
	// exclusive. So never call exclusive while mu is held: the goroutines could wait for each
	// other for ever.
	mu     sync.Mutex
	lib    *Library // nil before the first session
	freed  bool
	stored []storedSession // the oldest first
}

type storedSession struct {
	key     string
	session uintptr // an SSL_SESSION; the cache owns a reference to it
	since   time.Time
}

// Free frees all sessions. After that the cache stays empty, also if connections still use it. A
// second Free does nothing.
func (s *SessionCache) Free() {
	s.mu.Lock()
	lib, stored := s.lib, s.stored
	s.freed, s.stored = true, nil
	s.mu.Unlock()
	if len(stored) == 0 {
		return
	}
	lib.exclusive(func() {
		for _, e := range stored {
			call(lib.sym.sessionFree, e.session)
		}
	})
}

// Len is the number of sessions.
func (s *SessionCache) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stored)
}

// add puts sessions into the cache, which owns them from then on. The parameter since is the time
// when their server was verified. Call add inside exclusive.
func (s *SessionCache) add(l *Library, key string, sessions []uintptr, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lib = l
	if s.freed {
		for _, session := range sessions {
			call(l.sym.sessionFree, session)
		}
		return
	}
	for _, session := range sessions {
		s.stored = append(s.stored, storedSession{key, session, since})
	}
	s.drop(func(e storedSession) bool { return time.Since(e.since) > oldestSession })
	s.bound(mostOfOneKey, func(e storedSession) bool { return e.key == key })
	s.bound(mostSessions, func(storedSession) bool { return true })
}

// bound limits the number of sessions for which member() is true. It frees the oldest of these
// sessions. s.mu must be held.
func (s *SessionCache) bound(limit int, member func(storedSession) bool) {
	n := 0
	for _, e := range s.stored {
		if member(e) {
			n++
		}
	}
	s.drop(func(e storedSession) bool {
		if n <= limit || !member(e) {
			return false
		}
		n--
		return true
	})
}

// drop frees the sessions for which meant() is true. s.mu must be held.
func (s *SessionCache) drop(meant func(storedSession) bool) {
	s.stored = slices.DeleteFunc(s.stored, func(e storedSession) bool {
		if !meant(e) {
			return false
		}
		call(s.lib.sym.sessionFree, e.session)
		return true
	})
}

// take removes the newest session of a key from the cache, and returns it, with the time when the
// server was verified. The caller owns the reference to the session. If the cache has no session of
// the key, take returns 0. Call take inside exclusive.
func (s *SessionCache) take(key string) (session uintptr, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lib == nil {
		return 0, since
	}
	s.drop(func(e storedSession) bool {
		return time.Since(e.since) > oldestSession ||
			int32(call(s.lib.sym.sessionIsResumable, e.session)) != 1
	})
	for n, e := range slices.Backward(s.stored) {
		if e.key == key {
			s.stored = slices.Delete(s.stored, n, n+1)
			return e.session, e.since
		}
	}
	return 0, since
}

// A resumption is the part of a client's Conn that uses a cache. Conn.mu guards it.
type resumption struct {
	cache   *SessionCache
	wishes  ClientSettings // the client's settings; empty after the handshake has begun
	key     string         // set when the handshake begins; see sessionKey
	offered uintptr        // the session that the handshake offers
	since   time.Time      // the time of the full handshake that has verified the server
	fresh   []uintptr      // sessions that have come and are not in the cache yet
}

// sessionKey is a hash of all settings that decide how the server is verified, and what is agreed
// with the server.
func (c *Conn) sessionKey(s *ClientSettings) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %t %t %q %x", s.Place, c.peer, c.trust, c.verify, c.tls13,
		s.ALPN, s.Pins)
	if s.Identity != nil {
		fmt.Fprintf(h, " %q %q", s.Identity.Cert, s.Identity.Key)
	}
	return string(h.Sum(nil))
}

// offerSession makes the handshake offer a session, if there is one. The caller holds c.mu.
func (c *Conn) offerSession() {
	r := c.resume
	if r == nil {
		return
	}
	r.key, r.wishes = c.sessionKey(&r.wishes), ClientSettings{}
	l := c.lib
	l.keepers.Store(c.ssl, c)
	l.exclusive(func() {
		if r.offered, r.since = r.cache.take(r.key); r.offered != 0 &&
			int32(call(l.sym.sslSetSession, c.ssl, r.offered)) != 1 {
			call(l.sym.sessionFree, r.offered)
			r.offered = 0
		}
	})
}

// keepSession is the callback of all client contexts (SSL_CTX_sess_set_new_cb(3)). It runs during a
// stay of the connection, while Conn.mu is locked.
func (l *Library) keepSession(ssl, session uintptr) (result uintptr) {
	defer func() { _ = recover() }() // a panic must not unwind C's frames
	v, ok := l.keepers.Load(ssl)
	if !ok {
		return 0
	}
	if r := v.(*Conn).resume; len(r.fresh) < mostOfOneKey {
		r.fresh = append(r.fresh, session)
		return keepsReference
	}
	return 0
}

// keepFresh puts new sessions into the cache, after the handshake has succeeded. The caller holds
// c.mu.
func (c *Conn) keepFresh() {
	if r := c.resume; r != nil && len(r.fresh) > 0 {
		c.lib.exclusive(func() { r.cache.add(c.lib, r.key, r.fresh, r.since) })
		r.fresh = nil
	}
}

// settleOffer frees the offered session. Call it after a successful handshake. The caller holds
// c.mu.
//
//   - If the server has not resumed a session, this handshake has verified the server. So r.since
//     becomes the present time.
//   - A session of TLS 1.2 can be resumed several times. If the server has resumed one, settleOffer
//     puts the connection's present session into the cache, and not the offered one. The server may
//     have renewed the ticket, and OpenSSL does not call keepSession for a renewed ticket.
//   - If the server has resumed a session of TLS 1.3, no session is put back: the server sends new
//     ones.
func (c *Conn) settleOffer() {
	r := c.resume
	if r == nil {
		return
	}
	if r.offered == 0 {
		r.since = time.Now()
		return
	}
	sym := &c.lib.sym
	c.lib.exclusive(func() {
		switch {
		case int32(call(sym.sslSessionReused, c.ssl)) != 1:
			r.since = time.Now()
		case int32(call(sym.sessionVersion, r.offered)) < tls13:
			if session := call(sym.sslGet1Session, c.ssl); session != 0 {
				r.cache.add(c.lib, r.key, []uintptr{session}, r.since)
			}
		}
		call(sym.sessionFree, r.offered)
	})
	r.offered = 0
}

// dropSessions frees the sessions that the connection still owns. The caller holds c.mu.
func (c *Conn) dropSessions() {
	r := c.resume
	if r == nil {
		return
	}
	c.resume = nil
	c.lib.keepers.Delete(c.ssl)
	if r.offered != 0 {
		r.fresh = append(r.fresh, r.offered)
	}
	if len(r.fresh) > 0 {
		c.lib.exclusive(func() {
			for _, session := range r.fresh {
				call(c.lib.sym.sessionFree, session)
			}
		})
	}
}
