package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// The scenes. An error says which step of the scene has failed.
var scenes = []struct {
	name string
	play func(*scene) error
}{
	{"transfer", (*scene).transfer},
	{"transfer", (*scene).transfer},
	{"pair", (*scene).pair},
	{"pair", (*scene).pair},
	{"cancel", (*scene).cancel},
	{"bundles", (*scene).bundles},
	{"nobody there", (*scene).nobodyThere},
	{"raw", (*scene).raw},
	{"abandon", (*scene).abandon},
}

// length returns a random length below limit. Small lengths are more likely.
func (sc *scene) length(limit int) int { return sc.random.IntN(1 + sc.random.IntN(limit)) }

// connect makes a connection whose certificate is verified.
func (sc *scene) connect(s *session, port int) (client.Handle, error) {
	h, err := s.NewClient(sc.ctx, "127.0.0.1", port)
	if err == nil {
		err = s.Handshake(sc.ctx, h)
	}
	if err == nil {
		sc.figures.add("connections", 1)
	}
	return h, err
}

// trusting opens a session that trusts the arena's CA. Its CA file is sc.bundle, which
// changeBundles replaces, or sc.ca.File, which never changes.
func (sc *scene) trusting() (*session, error) {
	s, err := sc.open()
	if err != nil {
		return nil, err
	}
	file := sc.bundle
	if sc.random.IntN(3) == 0 {
		file = sc.ca.File
	}
	return s, s.SetCaBundle(sc.ctx, file)
}

// transfer sends and receives streams at the same time. The peer may end its direction first.
func (sc *scene) transfer() error {
	s, err := sc.trusting()
	if err != nil {
		return err
	}
	for range 1 + sc.random.IntN(3) {
		h, err := sc.connect(s, sc.peer.port)
		if err != nil {
			return err
		}
		if err := sc.order(s, h); err != nil {
			return err
		}
	}
	return nil
}

// order gives an order to the peer of a connection, sends and receives the streams of the order,
// and closes the connection.
func (sc *scene) order(s *session, h client.Handle) error {
	o := order{token: sc.random.Uint64(), up: uint64(sc.length(1 << 20)),
		down: uint64(sc.length(1 << 20)), halfClose: uint64(sc.random.IntN(2))}
	result := sc.peer.expect(o)
	defer sc.peer.results.Delete(o.token)
	if _, err := s.Write(sc.ctx, h, o.bytes()); err != nil {
		return err
	}
	pieces, reads := 1+sc.random.IntN(200<<10), 1+sc.random.IntN(200<<10)
	var reading error
	var both sync.WaitGroup
	if o.halfClose == 0 {
		both.Go(func() { reading = sc.download(s, h, ^o.token, int(o.down), reads) })
	} else if err := sc.download(s, h, ^o.token, int(o.down), reads); err != nil {
		return err
	}
	writing := sc.upload(s, h, o.token, int(o.up), pieces)
	both.Wait()
	if err := errors.Join(writing, reading); err != nil {
		return err
	}
	if err := s.CloseConn(sc.ctx, h); err != nil {
		return err
	}
	select {
	case err := <-result:
		if err != nil {
			return fmt.Errorf("the peer, of up %d, down %d, half-close %d, reports: %w",
				o.up, o.down, o.halfClose, err)
		}
	case <-sc.ctx.Done():
		return errors.New("the peer reports no result: it has not got the end of the data")
	}
	return nil
}

// upload writes n bytes of the stream with this key. A Write has size bytes at most.
func (sc *scene) upload(s *session, h client.Handle, key uint64, n, size int) error {
	for at := 0; at < n; {
		p := filled(key, at, min(size, n-at))
		if _, err := s.Write(sc.ctx, h, p); err != nil {
			return err
		}
		at += len(p)
		sc.figures.add("bytes sent", len(p))
	}
	return nil
}

// download reads the stream with this key, which must end after n bytes. A Read asks for size
// bytes.
func (sc *scene) download(s *session, h client.Handle, key uint64, n, size int) error {
	for at := 0; ; {
		p, err := s.Read(sc.ctx, h, size)
		if err != nil {
			return err
		}
		if len(p) == 0 {
			// If the worker of the other side was killed, Read must fail, and not
			// report an end.
			if at != n {
				return wrongByte{fmt.Errorf("Read reports the end after %d of %d "+
					"bytes", at, n)}
			}
			return nil
		}
		if err := wrong(key, at, p); err != nil {
			return wrongByte{err}
		}
		at += len(p)
		sc.figures.add("bytes received", len(p))
	}
}

// pair has two sessions. One accepts the connection of the other.
func (sc *scene) pair() error {
	server, err := sc.open()
	if err != nil {
		return err
	}
	cl, err := sc.trusting()
	if err != nil {
		return err
	}
	ctx := sc.ctx
	sctx, err := server.NewServerContext(ctx, sc.cert.CertFile, sc.cert.KeyFile)
	if err != nil {
		return err
	}
	port := <-sc.ports
	defer sc.giveBack(port)
	connections, bad := 1+sc.random.IntN(3), sc.random.IntN(3) == 0
	accept := func() <-chan accepted {
		got := make(chan accepted, 1)
		go func() {
			h, err := server.Accept(ctx, sctx, "127.0.0.1", port)
			if err == nil {
				sc.figures.add("accepts", 1)
			}
			got <- accepted{h, err}
		}()
		return got
	}
	next := accept()
	if err := sc.listens(port, next); err != nil {
		return err
	}
	if bad {
		conn, err := net.Dial("tcp", testkit.Addr(port))
		if err != nil {
			return err
		}
		io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		got := <-next
		conn.Close()
		if kindOf(got.err) != client.KindHandshake {
			return unexpected("an Accept of a client without TLS", got.err)
		}
		sc.figures.add("bad clients", 1)
		next = accept()
	}
	for i := range connections {
		key := sc.random.Uint64()
		up, down, pieces := sc.length(300<<10), sc.length(300<<10),
			1+sc.random.IntN(100<<10)
		h, err := sc.connect(cl, port)
		if err != nil {
			return err
		}
		got := <-next
		if got.err != nil {
			return got.err
		}
		// A Close ends both directions. So the side that has sent everything waits for the
		// other side.
		serving := make(chan error, 1)
		go func() {
			err := sc.exactly(server, got.h, key, up, pieces)
			if err == nil {
				err = sc.upload(server, got.h, ^key, down, pieces)
			}
			if err == nil {
				err = server.CloseConn(ctx, got.h)
			}
			serving <- err
		}()
		err = sc.upload(cl, h, key, up, pieces)
		if err == nil {
			err = sc.download(cl, h, ^key, down, pieces)
		}
		if err != nil {
			sc.giveUp()
		} else {
			err = cl.CloseConn(ctx, h)
		}
		if err = errors.Join(err, <-serving); err != nil {
			return err
		}
		if i+1 < connections {
			next = accept()
		}
	}
	return server.CloseServerContext(ctx, sctx)
}

// exactly reads n bytes of the stream with this key. A Read asks for size bytes at most.
func (sc *scene) exactly(s *session, h client.Handle, key uint64, n, size int) error {
	for at := 0; at < n; {
		p, err := s.Read(sc.ctx, h, min(size, n-at))
		switch {
		case err != nil:
			return err
		case len(p) == 0:
			return wrongByte{fmt.Errorf("Read reports the end after %d of %d bytes", at,
				n)}
		}
		if err := wrong(key, at, p); err != nil {
			return wrongByte{err}
		}
		at += len(p)
		sc.figures.add("bytes received", len(p))
	}
	return nil
}

// giveUp ends the scene's sessions, so that no call waits for ever.
func (sc *scene) giveUp() {
	for _, s := range sc.sessions {
		sc.close(s)
	}
}

type accepted struct {
	h   client.Handle
	err error
}

// listens waits until the port has a listener, or the Accept that should listen has ended.
func (sc *scene) listens(port int, accept <-chan accepted) error {
	for !testd.Listening(sc.t, port) {
		select {
		case got := <-accept:
			return fmt.Errorf("the Accept has ended before it listened: %w", got.err)
		case <-sc.ctx.Done():
			return errors.New("nobody listens")
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// giveBack ends the scene's sessions. When the port has no listener any more, it gives the port
// back to the arena.
func (sc *scene) giveBack(port int) {
	sc.giveUp()
	for end := time.Now().Add(testkit.Patience); testd.Listening(sc.t,
		port); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			sc.fail("scene %q: its session has ended, and somebody still listens on "+
				"its port %d", sc.name, port)
			break
		}
	}
	sc.ports <- port
}

// cancel makes Reads, and cancels them. The connection must still work.
func (sc *scene) cancel() error {
	s, err := sc.trusting()
	if err != nil {
		return err
	}
	h, err := sc.connect(s, sc.peer.port)
	if err != nil {
		return err
	}
	for range 1 + sc.random.IntN(4) {
		soon, cancel := context.WithTimeout(sc.ctx,
			time.Duration(sc.random.IntN(20))*time.Millisecond)
		_, err := s.Read(soon, h, 1000)
		cancel()
		if kindOf(err) != client.KindCancelled {
			return unexpected("a Read that was cancelled", err)
		}
		sc.figures.add("cancelled", 1)
	}
	if sc.random.IntN(2) == 0 { // a Close ends a Read
		ended := make(chan error, 1)
		go func() {
			_, err := s.Read(sc.ctx, h, 1000)
			ended <- err
		}()
		time.Sleep(time.Duration(sc.random.IntN(5)) * time.Millisecond)
		if err := s.CloseConn(sc.ctx, h); err != nil {
			return err
		}
		if err := <-ended; kindOf(err) != client.KindCancelled &&
			kindOf(err) != client.KindHandle {
			return unexpected("a Read whose handle was closed", err)
		}
		return nil
	}
	return sc.order(s, h)
}

// bundles changes the CAs that a session trusts. Later connections must be verified with the new
// CAs.
func (sc *scene) bundles() error {
	s, err := sc.open()
	if err != nil {
		return err
	}
	for range 1 + sc.random.IntN(4) {
		good := sc.random.IntN(2) == 0
		file := sc.stranger.File
		if good {
			file = sc.bundle
		}
		if err := s.SetCaBundle(sc.ctx, file); err != nil {
			return err
		}
		if sc.random.IntN(3) == 0 {
			if err := s.SetCaBundle(sc.ctx, "/nonexistent/ca.pem"); kindOf(
				err) != client.KindFile {
				return unexpected("SetCaBundle of a missing file", err)
			}
		}
		h, err := sc.connect(s, sc.peer.port)
		if !good {
			if kindOf(err) != client.KindVerify {
				return unexpected("a handshake with an untrusted certificate", err)
			}
			sc.figures.add("refused certificates", 1)
			err = s.CloseConn(sc.ctx, h)
		} else if err == nil {
			err = sc.order(s, h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nobodyThere connects to a port without a listener. Each call must fail.
func (sc *scene) nobodyThere() error {
	s, err := sc.open()
	if err != nil {
		return err
	}
	port := <-sc.ports
	defer sc.giveBack(port)
	for range 1 + sc.random.IntN(5) {
		if _, err := s.NewClient(sc.ctx, "127.0.0.1",
			port); kindOf(err) != client.KindConnect {
			return unexpected("NewClient to a port without a listener", err)
		}
	}
	return nil
}

// raw sends calls, and lines of nonsense between them, in one write. Each line must get its answer.
func (sc *scene) raw() error {
	conn, err := sc.rawDial()
	if err != nil {
		return err
	}
	defer conn.Close()
	calls := 1 + sc.random.IntN(20)
	text := strings.Repeat(`{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`+"\nnonsense\n",
		calls)
	go func() { io.WriteString(conn, text); conn.CloseWrite() }()
	answers, err := io.ReadAll(conn)
	if err == nil && (bytes.Count(answers, []byte(`"result":"openssl"`)) != calls ||
		bytes.Count(answers, []byte(`"code":-32700`)) != calls) {
		err = fmt.Errorf("%d calls and as many lines of nonsense must get as many results "+
			"and errors -32700; they get %.1000q", calls, answers)
	}
	if err != nil {
		sc.unregistered()
		return err
	}
	sc.figures.add("raw sessions", 1)
	return nil
}

// abandon sends the beginning of a conversation, and then closes the session.
func (sc *scene) abandon() error {
	conn, err := sc.rawDial()
	if err != nil {
		return err
	}
	defer conn.Close()
	text := sc.conversation()
	io.WriteString(conn, text[:sc.random.IntN(len(text)+1)])
	// meanwhile tlsd may do a part of the conversation
	time.Sleep(time.Duration(sc.random.IntN(20)) * time.Millisecond)
	sc.figures.add("abandoned sessions", 1)
	return nil
}

// conversation returns requests that leave a session with a connection, a server context, a Read
// that waits, and a Write whose line has no end.
func (a *arena) conversation() string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.SetCaBundle","params":[%q]}
{"jsonrpc":"2.0","id":2,"method":"tls.NewClient","params":["127.0.0.1",%d]}
{"jsonrpc":"2.0","id":3,"method":"tls.Handshake","params":[1]}
{"jsonrpc":"2.0","id":4,"method":"tls.Read","params":[1,100]}
{"jsonrpc":"2.0","id":5,"method":"tls.NewServerContext","params":[%q,%q]}
{"jsonrpc":"2.0","id":6,"method":"tls.Write","params":[1,"%s`, a.ca.File, a.peer.port, a.cert.CertFile, a.cert.KeyFile, strings.Repeat("AAAA", 20000))
}

func (sc *scene) rawDial() (*net.UnixConn, error) {
	sc.daemon.RLock()
	socket := sc.d.Socket
	sc.daemon.RUnlock()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	return conn, nil
}

// unregistered excuses a scene whose session is not in a.sessions, if its worker may be one that
// was killed lately.
func (sc *scene) unregistered() {
	if sc.shared() && sc.killedSince(sc.began.Add(-time.Minute)) {
		sc.sessions = append(sc.sessions, doomedSession)
	}
}

func kindOf(err error) client.Kind {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
		return "connection refused"
	}
	return ""
}

// unexpected is the error of a call that must fail in another way.
func unexpected(call string, err error) error {
	if err == nil {
		return fmt.Errorf("%s succeeds, but must fail", call)
	}
	return fmt.Errorf("%s fails in the wrong way: %w", call, err)
}
