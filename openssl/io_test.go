package openssl_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"hash"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/openssl"
)

func TestReadGivesWhatIsThere(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		if _, err := peer.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 3)
		for _, want := range []string{"hel", "lo"} {
			n, err := c.Read(bounded(t), buf)
			if err != nil || string(buf[:n]) != want {
				t.Fatalf("Read %q, %v, want %q", buf[:n], err, want)
			}
		}
		if n, err := c.Read(bounded(t), nil); n != 0 || err != nil {
			t.Errorf("a Read of 0 bytes: %d, %v, want 0 and no error", n, err)
		}
		if n, err := c.Write(bounded(t), nil); n != 0 || err != nil {
			t.Errorf("a Write of 0 bytes: %d, %v, want 0 and no error", n, err)
		}
	})
}

// summed passes data on and computes its SHA-256 sum.
type summed struct {
	io.Reader
	sum hash.Hash
}

func (s summed) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

// blocks reads a stream in blocks of random sizes. The field most is the largest size.
type blocks struct {
	io.Reader
	most int
}

func (b blocks) Read(p []byte) (int, error) {
	return b.Reader.Read(p[:1+mathrand.IntN(min(len(p), b.most))])
}

// send writes random bytes in blocks and returns their sum. The parameter size is their number.
func send(w io.Writer, size int64, most int) ([]byte, error) {
	src := summed{io.LimitReader(mathrand.NewChaCha8([32]byte{1}), size), sha256.New()}
	buf := make([]byte, most)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, blocks{src, most}, buf)
	return src.sum.Sum(nil), err
}

// receive reads bytes and returns their sum. The parameter size is their number.
func receive(r io.Reader, size int64, most int) ([]byte, error) {
	sum := sha256.New()
	buf := make([]byte, most)
	n, err := io.CopyBuffer(struct{ io.Writer }{sum},
		io.LimitReader(struct{ io.Reader }{r}, size), buf)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return sum.Sum(nil), err
}

func TestBothDirectionsAtOnce(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		s := stream{bounded(t), c}
		var wg sync.WaitGroup
		var sent, got [2][]byte
		var errs [4]error
		wg.Go(func() { sent[0], errs[0] = send(s, size, 300_000) })
		wg.Go(func() { got[0], errs[1] = receive(peer, size, 50_000) })
		wg.Go(func() { sent[1], errs[2] = send(peer, size, 70_000) })
		wg.Go(func() { got[1], errs[3] = receive(s, size, 100_000) })
		wg.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		for i, d := range []string{"out", "in"} {
			if !bytes.Equal(sent[i], got[i]) {
				t.Errorf("direction %q: other data was received than was sent", d)
			}
		}
	})
}

func TestWaitingReadDoesNotHoldUpWrite(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(bounded(t), make([]byte, 1))
			read <- err
		}()
		// The peer sends back what it gets, so the Read ends only after the Write.
		go io.Copy(peer, peer)
		if _, err := c.Write(bounded(t), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Error(err)
		}
	})
}

func TestWaitingWriteDoesNotHoldUpRead(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		ctx, cancel := context.WithCancel(bounded(t))
		defer cancel()
		wrote := make(chan error, 1)
		go func() {
			// more than the system's buffers hold
			_, err := c.Write(ctx, make([]byte, 64<<20))
			wrote <- err
		}()
		for i := range 3 {
			if _, err := peer.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 2)
			if n, err := c.Read(bounded(t), buf); err != nil || n != 1 ||
				buf[0] != byte(i) {
				t.Fatalf("a Read while a Write waits: %d, %v, want 1 byte, %d", n,
					err, i)
			}
		}
		cancel()
		if err := <-wrote; !errors.Is(err, context.Canceled) {
			t.Errorf("the Write that was cancelled: %v, want context.Canceled", err)
		}
	})
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		const writers, block = 4, 100_000
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				if n, err := c.Write(bounded(t),
					bytes.Repeat([]byte{byte(i)}, block)); n != block ||
					err != nil {
					t.Errorf("Write: %d, %v, want %d and no error", n, err,
						block)
				}
			})
		}
		buf := make([]byte, block)
		for range writers {
			if _, err := io.ReadFull(peer, buf); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(buf, bytes.Repeat(buf[:1], block)) {
				t.Error("the data of two Writes is mixed")
			}
		}
		wg.Wait()
	})
}

func TestPeersCloseNotifyIsEOFAndEndsOnlyItsDirection(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		if _, err := peer.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		if err := peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(stream{bounded(t), c})
		if err != nil || string(got) != "last" {
			t.Fatalf("read %q, %v, want last", got, err)
		}
		if n, err := c.Read(bounded(t), make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read again: %d, %v, want EOF again", n, err)
		}
		answer := bytes.Repeat([]byte("answer"), 100_000)
		go func() {
			if n, err := c.Write(bounded(t), answer); n != len(answer) || err != nil {
				t.Errorf("Write after the peer's close_notify: %d, %v, want %d "+
					"and no error", n, err, len(answer))
			}
			c.Close()
		}()
		if back, err := io.ReadAll(peer); err != nil || !bytes.Equal(back, answer) {
			t.Errorf("the peer has got %d bytes, %v, want %d and close_notify",
				len(back), err, len(answer))
		}
	})
}

// If the peer's data ends without close_notify, Read returns ErrTruncated and not io.EOF. Here the
// peer ends only its own direction, so our data still arrives.
func TestCutConnectionIsNotEOF(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		if _, err := peer.Write([]byte("half of")); err != nil {
			t.Fatal(err)
		}
		// Close would reset the connection if the peer has not read everything.
		if err := peer.NetConn().(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(stream{bounded(t), c})
		if string(got) != "half of" || !errors.Is(err, openssl.ErrTruncated) {
			t.Fatalf("read %q, %v, want ErrTruncated", got, err)
		}
		if _, err := c.Read(bounded(t),
			make([]byte, 1)); !errors.Is(err, openssl.ErrTruncated) {
			t.Errorf("Read again: %v, want ErrTruncated", err)
		}
		if _, err := c.Write(bounded(t), []byte("answer")); err != nil {
			t.Errorf("Write: %v", err)
		}
		go c.Close()
		if got, err := io.ReadAll(peer); err != nil || string(got) != "answer" {
			t.Errorf("the peer has got %q, %v, want answer", got, err)
		}
	})
}

// Data that came before the end is returned first, even if the end has no close_notify.
func TestFailureAfterDataLosesNoData(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		const record = 1 << 14 // a full record, so that Read looks for a second one
		if _, err := peer.Write(make([]byte, record)); err != nil {
			t.Fatal(err)
		}
		if err := peer.NetConn().(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got := 0
		buf := make([]byte, 4*record)
		for got < record {
			n, err := c.Read(bounded(t), buf)
			if err != nil {
				t.Fatalf("a Read before all data has come: %d bytes and %v", n, err)
			}
			got += n
		}
		if n, err := c.Read(bounded(t), buf); n != 0 ||
			!errors.Is(err, openssl.ErrTruncated) {
			t.Errorf("Read at the end: %d, %v, want 0 and ErrTruncated", n, err)
		}
	})
}

func TestResetIsASystemError(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(stream{bounded(t), c})
			read <- err
		}()
		_ = peer.NetConn().(*net.TCPConn).SetLinger(0)
		peer.NetConn().Close()
		err := <-read
		var errno syscall.Errno
		if !errors.As(err, &errno) || errno != syscall.ECONNRESET {
			t.Errorf("Read: %v, want ECONNRESET", err)
		}
	})
}

func TestWriteToAGonePeerIsASystemError(t *testing.T) {
	t.Parallel()
	// After the peer's close_notify OpenSSL reports in another way that the peer has gone.
	for _, notified := range []bool{false, true} {
		t.Run(fmt.Sprint("close_notify=", notified), func(t *testing.T) {
			t.Parallel()
			forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
				if notified {
					_ = peer.CloseWrite()
					if _, err := c.Read(bounded(t),
						make([]byte, 1)); err != io.EOF {
						t.Fatal("Read after close_notify, want EOF: ", err)
					}
				}
				peer.NetConn().Close()
				var err error
				for err == nil { // until the reset has come
					_, err = c.Write(bounded(t), make([]byte, 1000))
				}
				var errno syscall.Errno
				if !errors.As(err, &errno) || errno != syscall.ECONNRESET &&
					errno != syscall.EPIPE {
					t.Errorf("Write: %v, want ECONNRESET or EPIPE", err)
				}
			})
		})
	}
}

func TestBrokenRecordIsAProtocolError(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		if _, err := peer.NetConn().Write([]byte("\x17\x03\x03\x00\x20 this is no " +
			"encrypted record   ")); err != nil {
			t.Fatal(err)
		}
		go io.Copy(peer.NetConn(), bytes.NewReader(make([]byte, 100)))
		_, err := io.ReadAll(stream{bounded(t), c})
		var p *openssl.ProtocolError
		if !errors.As(err, &p) || len(p.Queue) == 0 {
			t.Fatalf("Read: %v, want a ProtocolError with its queue", err)
		}
		if _, again := c.Write(bounded(t), []byte("x")); again != err {
			t.Errorf("Write afterwards: %v, want the same error", again)
		}
	})
}

func TestAlertAfterTheHandshakeIsNamed(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	ours, peers := tcpPair(t)
	go func() {
		s := tls.Server(peers, &tls.Config{Certificates: []tls.Certificate{id.cert.TLS()},
			ClientAuth: tls.RequireAnyClientCert})
		_ = s.Handshake()
		peers.Close()
	}()
	c, err := clientContext(t, l, id.ca.PEM()).NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Handshake(bounded(t)); err != nil {
		t.Fatal(err) // TLS 1.3: the client has finished before the server refuses
	}
	_, err = c.Read(bounded(t), make([]byte, 1))
	var p *openssl.ProtocolError
	if !errors.As(err, &p) || !strings.Contains(p.Reason, "certificate_required (116)") {
		t.Errorf("Read: %v, want the alert certificate_required", err)
	}
}

func TestCancelledReadLosesNothing(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		for _, end := range []struct {
			ctx  func() (context.Context, context.CancelFunc)
			want error
		}{
			{func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(5*time.Millisecond, cancel)
				return ctx, cancel
			}, context.Canceled},
			{func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), 5*time.Millisecond)
			}, context.DeadlineExceeded},
			{func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return ctx, cancel
			}, context.Canceled},
		} {
			ctx, cancel := end.ctx()
			n, err := c.Read(ctx, make([]byte, 10))
			if n != 0 || !errors.Is(err, end.want) {
				t.Fatalf("Read: %d, %v, want %v", n, err, end.want)
			}
			cancel()
		}
		if _, err := peer.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if n, err := c.Read(bounded(t), buf); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("the next Read: %q, %v, want hello", buf[:n], err)
		}
		go io.Copy(io.Discard, peer)
		if _, err := c.Write(bounded(t), buf); err != nil {
			t.Errorf("Write: %v", err)
		}
	})
}

// A cancelled Read returns either data or an error, and no byte is lost.
func TestReadsThatRaceWithTheirContext(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		const size = 2 << 20
		sent := make(chan []byte, 1)
		go func() {
			sum, err := send(peer, size, 5000)
			if err != nil {
				t.Error(err)
			}
			sent <- sum
		}()
		sum, got := sha256.New(), 0
		buf := make([]byte, 4000)
		for got < size {
			ctx, cancel := context.WithTimeout(bounded(t),
				time.Duration(mathrand.IntN(100))*time.Microsecond)
			n, err := c.Read(ctx, buf)
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			sum.Write(buf[:n])
			got += n
		}
		if !bytes.Equal(sum.Sum(nil), <-sent) {
			t.Error("the Reads have returned other data than the peer has sent")
		}
	})
}

func TestCancelledWriteBreaksOnlyItsDirection(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		const size = 64 << 20 // more than the system's buffers hold
		ctx, cancel := context.WithCancel(bounded(t))
		go func() {
			_, _ = peer.Read(make([]byte, 1)) // the Write has begun
			cancel()
		}()
		n, err := c.Write(ctx, make([]byte, size))
		if !errors.Is(err, context.Canceled) || !errors.Is(err, openssl.ErrWriteBroken) ||
			n >= size {
			t.Fatalf("the cancelled Write: %d, %v, want less than %d, "+
				"context.Canceled and ErrWriteBroken", n, err, size)
		}
		if n, err := c.Write(bounded(t), []byte("x")); n != 0 ||
			!errors.Is(err, openssl.ErrWriteBroken) {
			t.Errorf("the next Write: %d, %v, want ErrWriteBroken", n, err)
		}
		if _, err := peer.Write([]byte("still here")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		if n, err := c.Read(bounded(t), buf); err != nil ||
			string(buf[:n]) != "still here" {
			t.Errorf("Read: %q, %v, want still here", buf[:n], err)
		}
		go c.Close()
		got, err := io.Copy(io.Discard, peer)
		if err == nil {
			t.Error("the peer reads the broken stream to its end without an error")
		}
		if got++; got < int64(n) { // plus the byte that was read above
			t.Errorf("the peer has got %d bytes, but the cancelled Write has returned "+
				"%d", got, n)
		}
	})
}

func TestWriteCancelledBeforeItBeginsBreaksNothing(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := c.Write(ctx, []byte("no")); !errors.Is(err, context.Canceled) {
			t.Fatal("the Write whose context has ended, want context.Canceled: ", err)
		}
		if _, err := c.Write(bounded(t), []byte("yes")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if n, err := peer.Read(buf); err != nil || string(buf[:n]) != "yes" {
			t.Errorf("the peer has got %q, %v, want yes", buf[:n], err)
		}
	})
}

func TestManyConnectionsNeedFewThreads(t *testing.T) {
	// Not parallel: it counts the threads of the process.
	const conns = 200
	l, ca := load(t), testcert.NewCA(t, "CA")
	// RSA makes the test harder: a handshake computes so long that Go's scheduler uses one more
	// thread.
	sctx := serverContext(t, l,
		ca.Issue(t, testcert.Leaf{DNS: []string{"localhost"}, Key: testcert.RSA}))
	cctx := clientContext(t, l, ca.PEM())
	before := threads(t)
	block := make([]byte, 40_000)
	_, _ = rand.Read(block)
	var wg sync.WaitGroup
	most := before
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for tick := time.NewTicker(2 * time.Millisecond); ; {
			select {
			case <-tick.C:
				most = max(most, threads(t))
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	start := make(chan struct{})
	for range conns {
		ours, peers := tcpPair(t)
		s, err1 := sctx.NewServer(ours)
		c, err2 := cctx.NewClient(peers, "localhost")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer s.Close()
			<-start
			if err := s.Handshake(bounded(t)); err != nil {
				t.Error(err)
				return
			}
			if _, err := io.Copy(stream{bounded(t), s},
				struct{ io.Reader }{stream{bounded(t), s}}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			defer c.Close()
			<-start
			if err := c.Handshake(bounded(t)); err != nil {
				t.Error(err)
				return
			}
			back := make([]byte, len(block))
			for range 5 {
				if _, err := c.Write(bounded(t), block); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(stream{bounded(t), c}, back); err != nil ||
					!bytes.Equal(back, block) {
					t.Errorf("other data came back than was sent, or an "+
						"error: %v", err)
					return
				}
			}
		})
	}
	close(start) // all at once
	wg.Wait()
	close(stop)
	<-watched
	// At most 2*GOMAXPROCS threads are in C (see gate), GOMAXPROCS run Go, and 12 are the
	// runtime's own.
	if bound := before + 3*runtime.GOMAXPROCS(0) + 12; most > bound {
		t.Errorf("the process has had %d threads (%d before), want at most %d", most,
			before, bound)
	}
	t.Logf("%d threads before, %d at most", before, most)
}

func threads(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc to count threads with: ", err)
	}
	for line := range strings.Lines(string(status)) {
		if s, ok := strings.CutPrefix(line, "Threads:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(s))
			if err != nil {
				t.Error(err)
			}
			return n
		}
	}
	t.Error("/proc/self/status has no Threads line")
	return 0
}
