package openssl_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsd/internal/testkit"
	"tlsd/openssl"
)

func TestCloseWriteEndsOnlyOurDirection(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		shut := make(chan struct{})
		go func() {
			defer close(shut)
			if _, err := c.Write(bounded(t), pattern(300_000)); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := c.CloseWrite(bounded(t)); err != nil {
					t.Errorf("CloseWrite: %v", err)
				}
			}
			if n, err := c.Write(bounded(t), []byte("x")); n != 0 ||
				!errors.Is(err, openssl.ErrShut) {
				t.Errorf("Write after CloseWrite: %d, %v, want 0 and ErrShut", n,
					err)
			}
		}()
		got, err := io.ReadAll(peer)
		if err != nil || string(got) != string(pattern(300_000)) {
			t.Fatalf("the peer has got %d bytes, %v; want exactly the 300000 bytes "+
				"that were written", len(got), err)
		}
		for _, answer := range []string{"first", "second"} {
			if _, err := peer.Write([]byte(answer)); err != nil {
				t.Fatal(err)
			}
			expectRead(t, c, answer)
		}
		if err := peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(bounded(t), make([]byte, 1)); err != io.EOF {
			t.Errorf("Read: %v, want EOF", err)
		}
		<-shut
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if n, err := peer.NetConn().Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after close_notify the peer reads %d bytes, %v, want 0 and EOF",
				n, err)
		}
	})
}

func TestCloseWriteBeforeTheHandshakeIsAnError(t *testing.T) {
	t.Parallel()
	c, _ := setups[0].pair(t)
	if err := c.CloseWrite(bounded(t)); !errors.Is(err, openssl.ErrNoHandshake) {
		t.Error("CloseWrite before the handshake, want ErrNoHandshake: ", err)
	}
}

// In the middle of a handshake message from the peer OpenSSL sends no close_notify. So CloseWrite
// waits for the rest of the message, alone or beside a Read (reader).
func TestCloseWriteWaitsForTheRestOfAHandshakeMessage(t *testing.T) {
	t.Parallel()
	for _, reader := range []bool{false, true} {
		c, peer, f := connectForged(t)
		ticket := newSessionTicket()
		f.readPart(t, c, ticket[:len(ticket)/2])
		read := make(chan struct{})
		if reader {
			go func() {
				defer close(read)
				expectRead(t, c, "data")
			}()
		} else {
			f.send(t, handshakeRecord, ticket[len(ticket)/2:])
		}
		shut := make(chan error, 1)
		go func() { shut <- c.CloseWrite(bounded(t)) }()
		if reader {
			f.send(t, handshakeRecord, ticket[len(ticket)/2:])
			f.send(t, applicationRecord, []byte("data"))
			<-read
		}
		if err := <-shut; err != nil {
			t.Error(err)
		}
		if n, err := peer.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the peer reads %d bytes, %v, want 0 and EOF", n, err)
		}
	}
}

// The result 0 of SSL_do_handshake is a failure (SSL_do_handshake(3)). If the rest of a handshake
// message cannot be read, CloseWrite fails, and does not try until its context ends. No real
// OpenSSL returns 0 here, so a function of this test takes the place of OpenSSL's.
func TestCloseWriteFailsIfTheRestOfAMessageCannotBeRead(t *testing.T) {
	if elsewhere(t) { // the function is for all connections of the process
		return
	}
	c, _, f := connectForged(t)
	ticket := newSessionTicket()
	f.readPart(t, c, ticket[:len(ticket)/2])
	openssl.RefuseHandshakes(load(t))
	var protocol *openssl.ProtocolError
	if err := c.CloseWrite(bounded(t)); !errors.As(err, &protocol) {
		t.Errorf("CloseWrite: %v, want a ProtocolError", err)
	}
}

// In the middle of a handshake message, a Write or CloseWrite may read the rest of the message, and
// also the data after it. A Read that waits must still get this data. The test keeps all processors
// busy. So Go's netpoller usually looks at the socket too late, when the Write has emptied it.
func TestAReadGetsTheDataThatAWriteHasReadFromTheSocket(t *testing.T) {
	for name, write := range map[string]func(*openssl.Conn) error{
		"Write": func(c *openssl.Conn) error {
			_, err := c.Write(bounded(t), []byte("x"))
			return err
		},
		"CloseWrite": func(c *openssl.Conn) error { return c.CloseWrite(bounded(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				c, _, f := connectForged(t)
				ticket := newSessionTicket()
				read := f.stopReadIn(t, c, bounded(t),
					ticket[:len(ticket)/2], "data")
				stop := keepBusy(t)
				f.send(t, handshakeRecord, ticket[len(ticket)/2:])
				f.send(t, applicationRecord, []byte("data"))
				err := write(c)
				stop()
				testkit.Must(t, err)
				err = testkit.Receive(t, read, "the Read to get the data")
				testkit.Must(t, err)
			}
		})
	}
}

// A Write wakes the waiting Read if SSL_in_init has said that the Read is in the middle of a
// message. The test sets this state before each Write, although it is never true. No data may be
// lost or repeated.
func TestAReadThatIsWokenForNothingGoesOn(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		echo := make(chan error, 1)
		go func() {
			_, err := io.Copy(peer, peer)
			echo <- errors.Join(err, peer.CloseWrite())
		}()
		data, written := pattern(1<<20), make(chan error, 1)
		go func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 3000)
				openssl.PretendInMessage(c)
				if _, err := c.Write(bounded(t), rest[:n]); err != nil {
					written <- err
					return
				}
				rest = rest[n:]
			}
			written <- c.CloseWrite(bounded(t))
		}()
		got, err := io.ReadAll(stream{bounded(t), c})
		err = errors.Join(err, <-written, <-echo)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back, %v; want the %d bytes sent", len(got), err,
				len(data))
		}
	})
}

// A Write or CloseWrite that itself waits for the rest of a handshake message does not wake itself.
func TestAWriteThatMustReadSleepsMeanwhile(t *testing.T) {
	// The test needs a new process, because a Watcher must be set before the library is used.
	if elsewhere(t) {
		return
	}
	w := new(counter)
	load(t).Watcher = w
	for name, write := range map[string]func(context.Context, *openssl.Conn) error{
		"Write": func(ctx context.Context, c *openssl.Conn) error {
			_, err := c.Write(ctx, []byte("x"))
			return err
		},
		"CloseWrite": func(ctx context.Context, c *openssl.Conn) error {
			return c.CloseWrite(ctx)
		},
	} {
		c, _, f := connectForged(t)
		ticket := newSessionTicket()
		f.readPart(t, c, ticket[:len(ticket)/2])
		before := w.stays.Load()
		ctx, cancel := context.WithTimeout(bounded(t), 200*time.Millisecond)
		if err := write(ctx, c); err != context.DeadlineExceeded {
			t.Errorf("%s in the middle of a message returns %v; want it to wait until "+
				"its deadline", name, err)
		}
		cancel()
		if n := w.stays.Load() - before; n > 20 {
			t.Errorf("%s has entered the library %d times while it waited, want at "+
				"most 20", name, n)
		}
	}
}

// A counter is a Watcher that counts the stays in the library.
type counter struct{ stays atomic.Int64 }

func (c *counter) Enter(int, string, int32) { c.stays.Add(1) }
func (c *counter) Leave(int)                {}

// keepBusy occupies all processors of Go until stop is called.
func keepBusy(t *testing.T) (stop func()) {
	var over atomic.Bool
	var busy sync.WaitGroup
	n := 2 * runtime.GOMAXPROCS(0)
	busy.Add(n)
	for range n {
		go func() {
			for busy.Done(); !over.Load(); {
			}
		}()
	}
	busy.Wait()
	stop = func() { over.Store(true) }
	t.Cleanup(stop)
	return stop
}

// A Write that is cancelled leaves records that are not sent, and the peer accepts none that come
// later. So CloseWrite fails.
func TestCloseWriteThatIsGivenUpBreaksTheOutgoingStream(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		ctx, cancel := context.WithCancel(bounded(t))
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write(ctx, make([]byte, 64<<20))
			wrote <- err
		}()
		_, _ = peer.Read(make([]byte, 1))
		cancel()
		if err := <-wrote; !errors.Is(err, context.Canceled) {
			t.Fatal("the Write that was cancelled, want context.Canceled: ", err)
		}
		if err := c.CloseWrite(bounded(t)); !errors.Is(err, openssl.ErrWriteBroken) {
			t.Errorf("CloseWrite: %v, want ErrWriteBroken", err)
		}
	})
}

// ended makes the peer end its direction, and reads until this end. notified says whether the peer
// sends close_notify.
func ended(t *testing.T, c *openssl.Conn, peer *tls.Conn, notified bool) {
	t.Helper()
	want := openssl.ErrTruncated
	if notified {
		want = io.EOF
		if err := peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	} else if err := peer.NetConn().(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(bounded(t), make([]byte, 1)); err != want {
		t.Fatalf("Read: %v, want %v", err, want)
	}
}

// After the end of the peer's data, WaitReset waits until the peer resets the connection. Then
// WaitReset, the Write that waits, and all later Writes fail with the error of the system.
func TestWaitResetTellsOfAResetAfterTheEnd(t *testing.T) {
	t.Parallel()
	for _, notified := range []bool{true, false} {
		forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
			if err := c.WaitReset(bounded(t)); err == nil {
				t.Error("WaitReset succeeds before the end of the data is read")
			}
			ended(t, c, peer, notified)
			ctx, cancel := context.WithCancel(bounded(t))
			waited := make(chan error, 2)
			go func() { waited <- c.WaitReset(ctx) }()
			untilReads(t, c)
			cancel()
			if err := <-waited; !errors.Is(err, context.Canceled) {
				t.Errorf("WaitReset that is cancelled: %v, want context.Canceled",
					err)
			}
			go func() { waited <- c.WaitReset(bounded(t)) }()
			// A WaitReset that waits does not hold up a Read or a Write.
			if _, err := c.Read(bounded(t), make([]byte, 1)); err == nil {
				t.Error("a Read after the end of the peer's data succeeds")
			}
			if _, err := c.Write(bounded(t), []byte("hello")); err != nil {
				t.Errorf("Write after the end of the peer's data: %v", err)
			}
			expectFromClient(t, peer, "hello")
			wrote := stall(t, c, 64<<20)
			_ = peer.NetConn().(*net.TCPConn).SetLinger(0)
			peer.NetConn().Close()
			if err := <-waited; !systemError(err) {
				t.Errorf("WaitReset: %v, want ECONNRESET or EPIPE", err)
			}
			if err := <-wrote; !systemError(err) {
				t.Errorf("the Write that waited: %v, want ECONNRESET or EPIPE", err)
			}
			if _, err := c.Write(bounded(t), []byte("x")); !systemError(err) {
				t.Errorf("Write after the reset: %v, want ECONNRESET or EPIPE", err)
			}
			if err := c.WaitReset(bounded(t)); !systemError(err) {
				t.Errorf("WaitReset after the reset: %v, want ECONNRESET or EPIPE",
					err)
			}
		})
	}
}

// A Write waits for the rest of a handshake message. Then a Read reads the rest, and the end of the
// data after it, and a WaitReset begins. No event of the socket would wake the Write. So the
// WaitReset lets the Write go first.
func TestWaitResetGivesWayToAWrite(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		ended(t, c, peer, true)
		openssl.WantMessage(c)
		ctx, cancel := context.WithCancel(bounded(t))
		waited := make(chan error, 1)
		go func() { waited <- c.WaitReset(ctx) }()
		untilReads(t, c)
		testkit.Must(t, openssl.TakeReading(bounded(t), c))
		cancel()
		if err := <-waited; !errors.Is(err, context.Canceled) {
			t.Errorf("WaitReset that is cancelled: %v, want context.Canceled", err)
		}
	})
}

func TestCloseEndsWaitReset(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		ended(t, c, peer, true)
		waited := make(chan error, 1)
		go func() { waited <- c.WaitReset(bounded(t)) }()
		untilReads(t, c)
		c.Close()
		if err := <-waited; !errors.Is(err, net.ErrClosed) {
			t.Errorf("WaitReset: %v, want net.ErrClosed", err)
		}
	})
}

// untilReads returns when a Read or WaitReset of c has begun.
func untilReads(t *testing.T, c *openssl.Conn) {
	t.Helper()
	testkit.Until(t, "a Read or WaitReset has begun", func() bool { return openssl.Reads(c) })
}
