package plugin

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
)

// What runs ahead of the host: Writes of whose answers it has not heard, and data that it has not asked for.

const runsAhead = "TLSD_STRICT_WRITES=0"

// ready gives a host with the connection 1, on which the handshake is done.
func ready(t *testing.T) (*standIn, *host, *peer) {
	t.Helper()
	d, h, p := opened(t, runsAhead)
	p.shake(h, 1)
	return d, h, p
}

// shake does the handshake of a connection.
func (p *peer) shake(h *host, handle int) {
	p.t.Helper()
	shake := h.start("Handshake", handle)
	p.result(p.expect("tls.Handshake", fmt.Sprintf("[%d]", handle)), "0")
	shake.gives(0, "")
}

// takesWrite takes a Write's request and gives its id.
func (p *peer) takesWrite(handle int, data string) int64 {
	p.t.Helper()
	r := p.request()
	if r.Method != "tls.Write" || string(r.Params) != fmt.Sprintf("[%d]", handle) || string(r.blob) != data {
		p.t.Fatalf("the plugin sends %s %s %q; want the Write of %q", r.Method, r.Params, r.blob, data)
	}
	return *r.ID
}

func writes(h *host, data string) *pending {
	return h.send("Write", 1, []byte(data))
}

const broken = "tls.Write: handle 1: broken pipe"

func TestWritesDoNotWaitForTheirAnswersAndKeepTheirOrder(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	for _, data := range []string{"one", "", "three"} {
		writes(h, data).gives(int64(len(data)), "")
	}
	read := h.start("Read", 1, 10)
	var ids []int64
	for _, data := range []string{"one", "", "three"} {
		ids = append(ids, p.takesWrite(1, data))
	}
	readID := p.expect("tls.Read", "[1,10]")
	for i, n := range []int{3, 0, 5} {
		p.result(ids[i], fmt.Sprint(n))
	}
	p.blob(readID, "answer")
	read.reads("answer")
}

func TestAWriteOnWhatIsNotReadyWaitsForItsError(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t, runsAhead)
	for _, handle := range []int{1, 99} {
		write := h.start("Write", handle, []byte("a"))
		p.fail(p.takesWrite(handle, "a"), fmt.Sprintf("tls.Write: handle %d: no", handle))
		write.fails(fmt.Sprintf("tls.Write: handle %d: no", handle))
	}
	// And on what is no longer there.
	p.shake(h, 1)
	closing := h.start("Close", 1)
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "")
	write := h.start("Write", 1, []byte("a"))
	p.fail(p.takesWrite(1, "a"), "tls.Write: handle 1: it is closed")
	write.fails("tls.Write: handle 1: it is closed")
}

func TestStrictWritesWaitForTheirAnswers(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	h.send("SetStrictWrites", 2).fails("tls.SetStrictWrites: on 2: must be 0 or 1")
	h.send("SetStrictWrites", 1).gives(0, "")
	write := h.start("Write", 1, []byte("a"))
	p.fail(p.takesWrite(1, "a"), broken)
	write.fails(broken)
	h.send("SetStrictWrites", 0).gives(0, "")
	writes(h, "b").gives(1, "")
	p.result(p.takesWrite(1, "b"), "1")
}

func TestTheNextCallRaisesTheErrorOfAWriteOnce(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]any{
		"Write": {1, []byte("b")}, "Read": {1, 10}, "PeerCertSubject": {1}, "Version": {1}, "Handshake": {1}, "SetTimeout": {1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p := ready(t)
			writes(h, "a").gives(1, "")
			p.fail(p.takesWrite(1, "a"), broken)
			p.client(h, 2) // its answer comes behind the error, which is known then
			h.send(name, args...).fails(broken)
			// Nothing was sent for that; now it is.
			again := h.start(name, args...)
			r := p.request()
			if r.Method != "tls."+name {
				t.Errorf("the plugin sends %s", r.Method)
			}
			p.fail(*r.ID, "tls."+name+": something else")
			if name == "Write" {
				again.gives(1, "") // ahead
			} else {
				again.fails("tls." + name + ": something else")
			}
		})
	}
	t.Run("Close", func(t *testing.T) {
		t.Parallel()
		_, h, p := ready(t)
		writes(h, "a").gives(1, "")
		closing := h.start("Close", 1)
		p.fail(p.takesWrite(1, "a"), broken)
		p.result(p.expect("tls.Close", "[1,1]"), "0")
		closing.fails(broken)
		p.client(h, 2)
	})
	t.Run("Close, which is answered before it", func(t *testing.T) {
		t.Parallel()
		_, h, p := ready(t)
		writes(h, "a").gives(1, "")
		closing := h.start("Close", 1)
		write := p.takesWrite(1, "a")
		p.result(p.expect("tls.Close", "[1,1]"), "0")
		p.client(h, 2) // by now it would have returned
		p.fail(write, broken)
		closing.fails(broken)
	})
	t.Run("of the first of several that fail", func(t *testing.T) {
		t.Parallel()
		_, h, p := ready(t)
		writes(h, "a").gives(1, "")
		writes(h, "b").gives(1, "")
		p.fail(p.takesWrite(1, "a"), broken)
		p.fail(p.takesWrite(1, "b"), "tls.Write: handle 1: a consequence")
		p.client(h, 2)
		writes(h, "c").fails(broken)
	})
	t.Run("of its own connection", func(t *testing.T) {
		t.Parallel()
		_, h, p := ready(t)
		p.client(h, 2)
		p.shake(h, 2)
		writes(h, "a").gives(1, "")
		p.fail(p.takesWrite(1, "a"), broken)
		p.client(h, 3)
		h.send("Write", 2, []byte("b")).gives(1, "")
		p.result(p.takesWrite(2, "b"), "1")
		writes(h, "c").fails(broken)
	})
}

// The peer may be silent because it has not got what was written.
func TestAReadThatWaitsRaisesTheErrorOfAWrite(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	writes(h, "a").gives(1, "")
	read := h.start("Read", 1, 10)
	id := p.takesWrite(1, "a")
	readID := p.expect("tls.Read", "[1,10]")
	p.fail(id, broken)
	p.cancelled(readID)
	p.fail(readID, "tls.Read: handle 1: cancelled by the caller")
	read.fails(broken)

	// Data that was on its way is not lost for it.
	writes(h, "b").gives(1, "")
	read = h.start("Read", 1, 10)
	id = p.takesWrite(1, "b")
	readID = p.expect("tls.Read", "[1,10]")
	p.fail(id, broken)
	p.blob(readID, "data")
	read.reads("data")
	p.cancelled(readID) // it came too late
	h.send("Read", 1, 10).fails(broken)
}

func TestCloseIsSentBehindTheWritesThatRunAhead(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	writes(h, "a").gives(1, "")
	writes(h, "b").gives(1, "")
	closing := h.start("Close", 1)
	first, second := p.takesWrite(1, "a"), p.takesWrite(1, "b")
	close := p.expect("tls.Close", "[1,1]") // 1: tlsd is to wait for the Writes
	p.result(first, "1")
	p.result(second, "1")
	p.result(close, "0")
	closing.gives(0, "")
	// Where nothing runs ahead, there is nothing to be patient for.
	p.client(h, 2)
	p.shake(h, 2)
	h.send("Write", 2, []byte("c")).gives(1, "")
	p.result(p.takesWrite(2, "c"), "1")
	p.client(h, 3) // the answer is taken
	closing = h.start("Close", 2)
	p.result(p.expect("tls.Close", "[2]"), "0")
	closing.gives(0, "")
}

func TestCloseEndsWhatAnotherThreadHasToWrite(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	fill(h, p)
	write := h.start("Write", 1, []byte("b"))
	h.untilAThreadWaits()
	closing := h.start("Close", 1)
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "")
	write.fails("tls.Write: handle 1: the handle was closed while the call waited")
}

// mayRunAhead is how many Writes of a connection may run ahead; of a session twice as many.
var mayRunAhead = func() int {
	if overSharedMemory {
		return 128
	}
	return 32
}()

// fill has as many Writes run ahead as may, and gives their ids.
func fill(h *host, p *peer) (ids []int64) {
	p.t.Helper()
	for range mayRunAhead {
		writes(h, "a").gives(1, "")
		ids = append(ids, p.takesWrite(1, "a"))
	}
	return ids
}

// untilAThreadWaits returns when a thread besides the main one waits in poll(2).
func (h *host) untilAThreadWaits() {
	h.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", h.PID))
		for _, task := range tasks {
			call, _ := os.ReadFile(task + "/syscall") // the number of the system call that it is in, proc_pid_syscall(5)
			number, _, _ := strings.Cut(string(call), " ")
			if filepath.Base(task) != fmt.Sprint(h.PID) && (number == fmt.Sprint(unix.SYS_POLL) || number == fmt.Sprint(unix.SYS_PPOLL)) {
				return
			}
		}
	}
	h.t.Fatal("no thread waits")
}

func TestWhatRunsAheadIsBounded(t *testing.T) {
	t.Parallel()
	t.Run("in number", func(t *testing.T) {
		t.Parallel()
		_, h, p := ready(t)
		ids := fill(h, p)
		write := h.start("Write", 1, []byte("b"))
		p.client(h, 2) // not the Write
		for _, id := range ids[:mayRunAhead/2-1] {
			p.result(id, "1")
		}
		p.client(h, 3) // still not
		p.result(ids[mayRunAhead/2-1], "1")
		p.takesWrite(1, "b")
		write.gives(1, "")
	})
	t.Run("in bytes", func(t *testing.T) {
		t.Parallel()
		_, h, p := ready(t)
		large := h.start("WriteZeros", 1, 2<<20)
		id := *p.request().ID
		large.gives(2<<20, "")
		write := h.start("Write", 1, []byte("b"))
		p.client(h, 2)
		p.result(id, fmt.Sprint(2<<20))
		p.takesWrite(1, "b")
		write.gives(1, "")
	})
	// full has as many Writes run ahead as may in a session, and more connections.
	full := func(t *testing.T, more int) (h *host, p *peer, ids []int64) {
		_, h, p = ready(t)
		ids = fill(h, p)
		for handle := 2; handle <= 2+more; handle++ {
			p.client(h, int64(handle))
			p.shake(h, handle)
		}
		for range mayRunAhead {
			h.send("Write", 2, []byte("a")).gives(1, "")
			ids = append(ids, p.takesWrite(2, "a"))
		}
		return h, p, ids
	}
	t.Run("in all, and nothing is answered", func(t *testing.T) {
		t.Parallel()
		h, p, _ := full(t, 1)
		// After a while one more is sent, but waits for its answer: it holds up nobody and is held up by nobody for ever.
		write := h.start("Write", 3, []byte("b"))
		id := p.takesWrite(3, "b")
		p.fail(id, "tls.Write: handle 3: its own error")
		write.fails("tls.Write: handle 3: its own error")
	})
	t.Run("in all, and those who wait get room", func(t *testing.T) {
		t.Parallel()
		const others = 20
		h, p, ids := full(t, others)
		var all []*pending
		for handle := 3; handle < 3+others; handle++ {
			all = append(all, h.start("Write", handle, []byte("b")))
		}
		h.untilAThreadWaits()
		for _, id := range ids {
			p.result(id, "1")
		}
		for range others {
			p.result(*p.request().ID, "1")
		}
		for _, write := range all {
			write.gives(1, "")
		}
		h.start("Close", 1)
		p.expect("tls.Close", "[1]")
	})
}

func TestCancelConcernsWritesThatWaitAndNoneThatRunAhead(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	ids := fill(h, p)
	write := h.start("Write", 1, []byte("b"))
	h.untilAThreadWaits()
	h.send("Cancel").gives(0, "")
	write.fails("tls.Write: handle 1: cancelled by the caller")
	for _, id := range ids {
		p.result(id, "1")
	}
	// Nothing of it has left, so that the connection is as it was.
	writes(h, "c").gives(1, "")
	p.result(p.takesWrite(1, "c"), "1")
}

func TestALostSessionIsToldThoughWritesRunAhead(t *testing.T) {
	t.Parallel()
	d, h, p := ready(t)
	writes(h, "a").gives(1, "")
	p.takesWrite(1, "a")
	p.send(`{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"lost: the worker has died","data":{"kind":"lost"}}}` + "\n")
	p.conn.CloseWrite()
	// A call that can do without the handle finds that out and begins anew.
	client := h.start("NewClient", "again", 1)
	p, _ = d.session()
	p.result(p.expect("tls.NewClient", `["again",1]`), "2")
	client.gives(2, "")
	writes(h, "b").fails("tls.Write: handle 1: lost: the worker has died")
}

func TestReadsAreServedFromWhatWasReadAhead(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	read := h.start("Read", 1, 3)
	p.blob(p.expect("tls.Read", "[1,3]"), "abcdefg")
	read.reads("abc")
	h.send("Read", 1, 3).reads("def")
	// What is asked for at once comes before what comes next.
	h.send("Read", 1, 1<<20).reads("g")
	read = h.start("Read", 1, 1<<20)
	p.blob(p.expect("tls.Read", "[1,1048576]"), "hij")
	read.reads("hij")
	read = h.start("Read", 1, 3)
	p.blob(p.expect("tls.Read", "[1,3]"), "")
	read.reads("")
}

func TestTwoThreadsThatReadGetEachByteOnce(t *testing.T) {
	t.Parallel()
	_, h, p := ready(t)
	one, two := h.start("Read", 1, 2), h.start("Read", 1, 2)
	p.blob(p.expect("tls.Read", "[1,2]"), "abcd")
	got := []string{one.wait().Text, two.wait().Text}
	if !(got[0] == "ab" && got[1] == "cd") && !(got[0] == "cd" && got[1] == "ab") {
		t.Errorf("the threads have read %q", got)
	}
}

// A program that writes and ends has written.
func TestWhatWasWrittenArrivesThoughTheHostEndsWithoutAClose(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	got := make(chan int, 1)
	ca, port := serving(t, func(conn *tls.Conn) {
		n, _ := io.Copy(io.Discard, conn)
		got <- int(n)
	})
	h := startHost(t, d.env(), runsAhead)
	h.call("SetCaBundle", ca)
	h.send("NewClient", "localhost", port).gives(1, "")
	h.send("Handshake", 1).gives(0, "")
	for range 30 {
		h.send("WriteZeros", 1, 50_000).gives(50_000, "")
	}
	h.send("exit")
	select {
	case n := <-got:
		if n != 30*50_000 {
			t.Errorf("%d bytes have arrived", n)
		}
	case <-time.After(patience):
		t.Error("the server sees no end")
	}
}

// A Close is sent right behind what runs ahead, and is patient with a peer that takes its time.
func TestACloseDoesNotCutShortWhatRunsAhead(t *testing.T) {
	t.Parallel()
	const writes, size = 23, 250_000 // more than the system has room for, as a rule, and no more than may run ahead besides
	d := startTLSD(t)
	got := make(chan int64, 1)
	ca, port := serving(t, func(conn *tls.Conn) {
		conn.NetConn().(*net.TCPConn).SetReadBuffer(32 << 10)
		conn.Handshake()
		time.Sleep(1200 * time.Millisecond) // the promise is about time
		n, err := io.Copy(io.Discard, conn)
		if err != nil {
			t.Error(err)
		}
		got <- n
	})
	h := startHost(t, d.env(), runsAhead)
	h.call("SetCaBundle", ca)
	h.send("NewClient", "localhost", port).gives(1, "")
	h.send("Handshake", 1).gives(0, "")
	for range writes {
		h.send("WriteZeros", 1, size).gives(size, "")
	}
	h.send("Close", 1).gives(0, "")
	select {
	case n := <-got:
		if n != writes*size {
			t.Errorf("%d bytes have arrived of %d", n, writes*size)
		}
	case <-time.After(patience):
		t.Error("the server sees no end")
	}
}

// A Close need not wait until the peer has everything. It arrives all the same, and so does the end, though the program leaves at
// once, and though the peer sends what nobody reads.
func TestWhatWasWrittenArrivesAfterTheCloseAndTheHostsEnd(t *testing.T) {
	t.Parallel()
	const writes, size = 30, 10_000
	type outcome struct {
		n   int64
		err error
	}
	for _, mode := range []string{runsAhead, "TLSD_STRICT_WRITES=1"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := startTLSD(t, "--close-timeout=60s")
			left := make(chan struct{})
			got := make(chan outcome, 1)
			ca, port := serving(t, func(conn *tls.Conn) {
				conn.NetConn().(*net.TCPConn).SetReadBuffer(32 << 10) // the rest has to wait on the other side
				conn.Handshake()
				<-left
				var o outcome
				for o.err == nil {
					var n int64
					n, o.err = io.CopyN(io.Discard, conn, size)
					o.n += n
					conn.Write(make([]byte, 100))     // a socket that is gone would answer with a reset
					time.Sleep(10 * time.Millisecond) // it is to be slower than the host's and the session's end
				}
				got <- o
			})
			h := startHost(t, d.env(), mode)
			h.call("SetCaBundle", ca)
			h.send("NewClient", "localhost", port).gives(1, "")
			h.send("Handshake", 1).gives(0, "")
			for range writes {
				h.send("WriteZeros", 1, size).gives(size, "")
			}
			h.send("Close", 1).gives(0, "")
			h.send("exit")
			<-h.Left
			close(left)
			select {
			case o := <-got:
				if o.n != writes*size || o.err != io.EOF {
					t.Errorf("%d bytes have arrived of %d, then %v", o.n, writes*size, o.err)
				}
			case <-time.After(patience):
				t.Error("the server sees no end")
			}
		})
	}
}

// serving is a server whose certificate is signed by the CA.
func serving(t *testing.T, serve func(*tls.Conn)) (ca string, port int) {
	t.Helper()
	authority := testcert.NewCA(t, "Test CA")
	cert := authority.Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"}, IPs: []string{"127.0.0.1"}})
	return authority.File, serveTLS(t, cert, serve)
}

// The real thing: a peer that is gone while Writes run ahead.
func TestAWriteToAPeerThatIsGoneIsRaisedByAnyCallThatFollows(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca, port := serving(t, func(conn *tls.Conn) {
		conn.Handshake()
		conn.NetConn().Close()
	})
	h := startHost(t, d.env(), runsAhead)
	h.call("SetCaBundle", ca)
	h.send("NewClient", "localhost", port).gives(1, "")
	h.send("Handshake", 1).gives(0, "")
	failed := ""
	for range 1000 {
		if r := h.call("WriteZeros", 1, 1000); r.N < 0 {
			failed = r.Text
			break
		}
	}
	if !strings.HasPrefix(failed, "tls.Write: handle 1: ") {
		t.Errorf("a thousand Writes to nobody: %q", failed)
	}
	if r := h.call("Read", 1, 10); r.N >= 0 {
		t.Errorf("a Read gives %d", r.N)
	}
}
