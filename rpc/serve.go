package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/jsonrpc2"
	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// Config says how sessions are served.
type Config struct {
	Session session.Config
	Limits  Limits
	// Version of tlsd, for tls.Hello.
	Version string
	// AnswerTimeout bounds the writing of one answer to a caller that does not
	// read. 30 s if zero.
	AnswerTimeout time.Duration
	// IdleTimeout ends a session that has no call in flight and of whose caller nothing has
	// come for so long. Never if zero.
	IdleTimeout time.Duration
	// Confinement is what tls.Info says of the confinement of this process; may be nil.
	Confinement map[string]string
	// Watcher, if it is not nil, is told what the session is at. It must not wait.
	Watcher Watcher
	// Began, if it is not nil, is told the session before its first call. The receiver may only
	// describe it, and only until Serve returns.
	Began func(*session.Session)
}

// A Watcher is told what a session is at, so that somebody else can tell the
// caller if this process dies. Its methods are called by several goroutines.
type Watcher interface {
	wire.Watcher
	// Calling names a call that is in flight, the youngest as a rule, and the handle that it
	// names or 0; or "" when there is none.
	Calling(method string, handle int32)
}

type noWatcher struct{}

func (noWatcher) Writing()              {}
func (noWatcher) Written()              {}
func (noWatcher) Calling(string, int32) {}

// farewellTimeout bounds the time for the last line of a session that ends from this side.
const farewellTimeout = 200 * time.Millisecond

// Serve serves one session on conn, until the caller is gone or ctx is done; then the caller is
// told ctx's cause. It owns conn. When it returns, everything that the session owned is freed. The
// error is nil when the caller has ended the connection in an orderly way.
func Serve(ctx context.Context, conn *net.UnixConn, cfg Config) error {
	if cfg.AnswerTimeout <= 0 {
		cfg.AnswerTimeout = 30 * time.Second
	}
	cfg.Limits = cfg.Limits.WithDefaults()
	if cfg.Watcher == nil {
		cfg.Watcher = noWatcher{}
	}
	s := &server{
		Config: cfg,
		sess:   session.New(cfg.Session),
		conn:   conn,
		w:      wire.NewWriter(conn, cfg.AnswerTimeout, cfg.Watcher),
		calls:  map[uint64]*call{},
	}
	s.r = wire.NewReader(idleReader{s}, cfg.Limits.Message)
	st := &stream{server: s}
	s.startIdleTimer()
	if cfg.Began != nil {
		cfg.Began(s.sess)
	}
	stop := context.AfterFunc(ctx, func() { s.endSession(context.Cause(ctx)) })
	defer stop()

	// The library's context is not ours: calls are ended by their session.
	lib := jsonrpc2.NewConn(context.Background(), st, s, jsonrpc2.SetLogger(log.New(io.Discard, "", 0)))
	<-lib.DisconnectNotify()
	s.hangUp()
	s.sess.End()
	s.answers.Wait()
	s.descriptors.close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.answerTimedOut.Load() {
		return fmt.Errorf("the caller has not read an answer within %v: %w", cfg.AnswerTimeout, os.ErrDeadlineExceeded)
	}
	return st.err
}

// server is the state of one served session.
type server struct {
	Config
	sess           *session.Session
	conn           *net.UnixConn
	w              *wire.Writer
	r              *wire.Reader // the reading goroutine's
	answerTimedOut atomic.Bool  // the caller has not taken an answer in time

	buffered atomic.Int64   // bytes that are kept for calls; see hold
	answers  sync.WaitGroup // calls that run, until they are answered

	// The reading goroutine's.
	lastReceived time.Time // when the caller has sent something last
	descriptors  descriptors

	mu           sync.Mutex       // guards the rest
	calls        map[uint64]*call // in flight, by their number
	lastAnswered time.Time        // when the last of calls was answered
}

// dismiss tells the caller why its session is lost, and ends it; without a word, if
// the caller does not read, or is in the middle of an answer, for too long.
func (s *server) endSession(why error) {
	late := time.AfterFunc(farewellTimeout, s.hangUp)
	defer late.Stop()
	s.sess.Hurry()
	s.refuse(&session.Error{Kind: kind.Lost, Why: "lost: " + why.Error()}, nil)
	s.hangUp()
}

// hangUp ends the connection. The caller sees its end at once, although the
// supervisor may have a copy of its descriptor (shutdown(2) is for all copies).
func (s *server) hangUp() {
	if rc, err := s.conn.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	s.conn.Close()
}

// linger is called when the caller will send no more. It returns when all calls
// are answered, or the caller has closed its reading side too.
func (s *server) awaitAnswers() {
	s.conn.SetReadDeadline(time.Time{}) // of idleness
	s.descriptors.close()
	answered := make(chan struct{})
	go func() { s.answers.Wait(); close(answered) }()

	gone := make(chan struct{})
	go func() { defer close(gone); waitHangup(s.conn) }()

	select {
	case <-answered:
		s.conn.SetReadDeadline(time.Unix(1, 0)) // ends waitHangup
		<-gone
	case <-gone:
		// The session's end answers what is left; Serve waits for that.
	}
}

// waitHangup returns when the other side has closed the connection altogether,
// or a read deadline has passed. On a Unix stream socket, end of file is seen
// after a shutdown of the other's writing side and after its close; only after
// the latter poll(2) reports POLLHUP.
func waitHangup(conn *net.UnixConn) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return
	}
	rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		for {
			_, err := unix.Poll(p, 0)
			if !errors.Is(err, unix.EINTR) {
				return err != nil || p[0].Revents&unix.POLLHUP != 0
			}
		}
	})
}
