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

// A Config has the settings of served sessions.
type Config struct {
	Session session.Config
	Limits  Limits
	// Version of tlsd, for tls.Hello.
	Version string
	// AnswerTimeout is how long the caller may take to read one answer. It also limits how long
	// descriptors may wait for the calls that announce them (descriptors.go). After that the
	// descriptors are closed. Zero means 30 s.
	AnswerTimeout time.Duration
	// IdleTimeout is how long a session may be idle before Serve ends it; see idleReader. Zero
	// means no limit.
	IdleTimeout time.Duration
	// Confinement is what tls.Info says about the confinement of this process. It may be nil.
	Confinement map[string]string
	// Watcher, if not nil, is told what the session is doing. It must not wait.
	Watcher Watcher
	// If Began is not nil, Serve calls it before the session's first call. Code that gets the
	// session in this way may call only its method Describe, and only until Serve returns.
	Began func(*session.Session)
}

// A Watcher is told what a session is doing. If this process dies, another process can then tell
// the caller which call was in flight. Several goroutines call the methods.
type Watcher interface {
	wire.Watcher
	// Calling gets the method and the handle of a call in flight, usually of the newest one.
	// The handle is 0 if the call has none. The method is "" if no call is in flight.
	Calling(method string, handle int32)
}

type noWatcher struct{}

func (noWatcher) Writing()              {}
func (noWatcher) Written()              {}
func (noWatcher) Calling(string, int32) {}

// farewellTimeout is the time in which a caller must take the line that endSession sends.
const farewellTimeout = 200 * time.Millisecond

// Serve serves one session on conn until the caller has closed conn or ctx is done. If ctx is done,
// Serve sends the caller the reason, which is context.Cause(ctx). Serve owns conn. When Serve
// returns, everything that the session owned is freed. The error is nil if the caller has ended the
// connection in an orderly way.
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

	// jsonrpc2 does not need ctx: when ctx is done, endSession ends the connection, and
	// sess.End() ends the calls.
	lib := jsonrpc2.NewConn(context.Background(), st, s,
		jsonrpc2.SetLogger(log.New(io.Discard, "", 0)))
	<-lib.DisconnectNotify()
	s.hangUp()
	s.sess.End()
	s.answers.Wait()
	s.descriptors.close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.answerTimedOut.Load() {
		return fmt.Errorf("the caller has not read an answer within %v: %w",
			cfg.AnswerTimeout, os.ErrDeadlineExceeded)
	}
	return st.err
}

// A server is the state of one served session.
type server struct {
	Config
	sess           *session.Session
	conn           *net.UnixConn
	w              *wire.Writer
	r              *wire.Reader // only the reading goroutine uses it
	answerTimedOut atomic.Bool  // the caller has not taken an answer in time

	buffered atomic.Int64   // bytes that are kept for calls; see reserveBuffer
	answers  sync.WaitGroup // the goroutines that run and answer calls; see start

	// Only the reading goroutine uses these. When it has ended, Serve uses them.
	lastReceived time.Time // when the newest bytes of the caller came
	descriptors  descriptors

	mu           sync.Mutex       // guards the rest
	calls        map[uint64]*call // in flight, by their number
	lastAnswered time.Time        // when the number of calls in flight became 0
}

// endSession tells the caller why its session is lost, and ends the session. If the line cannot be
// written within farewellTimeout, for example because the caller does not read, the session ends
// without the line.
func (s *server) endSession(why error) {
	late := time.AfterFunc(farewellTimeout, s.hangUp)
	defer late.Stop()
	s.sess.Hurry()
	s.refuse(&session.Error{Kind: kind.Lost, Why: "lost: " + why.Error()}, nil)
	s.hangUp()
}

// hangUp ends the connection. The caller sees the end at once, even if the supervisor still has a
// duplicate of the descriptor: shutdown(2) ends the connection for all duplicates.
func (s *server) hangUp() {
	if rc, err := s.conn.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	s.conn.Close()
}

// awaitAnswers is called when the caller will send no more. It returns when all calls are answered,
// or when the caller has closed the connection and can read no answers.
func (s *server) awaitAnswers() {
	s.conn.SetReadDeadline(time.Time{}) // no idle timeout any more
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
		// The session's end cancels the calls that are left; Serve waits for their answers.
	}
}

// waitHangup returns when the other side has closed the connection, or when a read deadline has
// passed. A read cannot tell a close from a shutdown of the other side's writing direction: both
// give end of file. Only after a close does poll(2) report POLLHUP.
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
