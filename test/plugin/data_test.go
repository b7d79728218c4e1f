package plugin

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// The bytes of a connection go over its data channel. A stand-in for tlsd has the other end of the
// channel, and reports an error when a test wants one.

const (
	allOpen    = `{"read":"open","write":"open","received":0,"sent":0}`
	readEnd    = `{"read":"end","write":"open","received":0,"sent":0}`
	readReset  = `{"read":"failed","write":"open","received":0,"sent":0,"readError":{"code":-32008,"message":"tls.Read: handle 1: cut","data":{"kind":"io"}}}`
	writeFail  = `{"read":"open","write":"failed","received":0,"sent":0,"writeError":{"code":-32008,"message":"tls.Write: handle 1: broken pipe","data":{"kind":"io"}}}`
	endAndFail = `{"read":"end","write":"failed","received":0,"sent":0,"writeError":{"code":-32008,"message":"tls.Write: handle 1: broken pipe","data":{"kind":"io"}}}`
	broken     = "tls.Write: handle 1: broken pipe"
)

// gets reads len(want) bytes from a data channel, and checks that they are want.
func gets(t *testing.T, data io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(data, got); err != nil || string(got) != want {
		t.Fatalf("the channel gives %q, %v; want %q", got[:n], err, want)
	}
}

func puts(t *testing.T, data io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(data, text); err != nil {
		t.Fatal(err)
	}
}

// silent checks that the plugin has sent no other request: it makes a call, and the request of this
// call must be the next one.
func (p *peer) silent(h *host) {
	p.t.Helper()
	call := h.start("Subject", 77)
	p.result(p.expect("tls.PeerCertSubject", "[77]"), `""`)
	call.gives(0, "")
}

func TestBytesGoOverTheChannelAndNothingOverControl(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	everyByte := ""
	for i := range 256 {
		everyByte += string([]byte{byte(i)})
	}
	for _, text := range []string{"x", "\n", everyByte,
		strings.Repeat("0123456789abcdef", 1500)} {
		h.send("Write", 1, []byte(text)).gives(int64(len(text)), "")
		gets(t, data, text)
		puts(t, data, text)
		for rest := text; rest != ""; {
			r := h.call("Read", 1, 65536)
			if r.N < 1 || !strings.HasPrefix(rest, r.Text) {
				t.Fatalf("Read gives %d, %.40q; want the start of %.40q", r.N,
					r.Text, rest)
			}
			rest = rest[r.N:]
		}
	}
	h.send("WriteRaw", 1, null, 0).gives(0, "")
	puts(t, data, "abcdefg")
	h.send("Read", 1, 3).reads("abc")
	h.send("Read", 1, 1).reads("d")
	h.send("Read", 1, 16<<20).reads("efg")
	p.silent(h)
}

func TestAReadWaitsForDataAndAWriteForRoom(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	read := h.start("Read", 1, 10)
	h.untilAThreadWaits()
	puts(t, data, "at last")
	read.reads("at last")

	write := h.start("WriteZeros", 1, 16<<20)
	if n, err := io.CopyN(io.Discard, data, 16<<20); err != nil {
		t.Fatalf("the test has read %d bytes, want %d: %v", n, 16<<20, err)
	}
	write.gives(16<<20, "")
	p.silent(h)
}

// A Write that waits for room fails if poll(2) fails. In this test the limit of descriptors is 1,
// and poll refuses a list that is longer.
func TestAWriteWhoseWaitTheSystemRefusesEnds(t *testing.T) {
	t.Parallel()
	_, h, _, _ := ready(t)
	write := h.start("WriteZeros", 1, 16<<20)
	h.untilAThreadWaits()
	restore := testkit.Limit(t, h.PID, unix.RLIMIT_NOFILE, 1)
	write.fails("tls.Write: handle 1: Invalid argument")
	restore()
	h.send("Write", 1, []byte("x")).fails("tls.Write: handle 1: an earlier Write was cut short")
}

func TestAnAcceptedConnectionHasAChannel(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	accept := h.start("Accept", 2, "::", 1)
	id := p.expect("tls.Accept", `[2,"::",1,1]`)
	data := p.channel()
	p.result(id, "9")
	accept.gives(9, "")
	h.send("Write", 9, []byte("hello")).gives(5, "")
	gets(t, data, "hello")
}

// With the option handshake=later, tls.Handshake sends the data channel, and tls.Accept sends none.
func TestAConnectionWhoseHandshakeComesLaterGetsItsChannelThen(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	for i, value := range []string{"later", "accept"} {
		option := h.start("SetOption", 2, "handshake", value)
		p.result(p.expect("tls.SetOption", `[2,"handshake","`+value+`"]`), "0")
		option.gives(0, "")
		accept, handle := h.start("Accept", 2, "::", 1), 8+i
		params := map[string]string{"later": `[2,"::",1]`, "accept": `[2,"::",1,1]`}[value]
		id := p.expect("tls.Accept", params)
		data := (*net.UnixConn)(nil)
		if value == "accept" {
			data = p.channel()
		}
		p.result(id, fmt.Sprint(handle))
		accept.gives(int64(handle), "")
		if value == "later" {
			data = p.shake(h, handle)
		}
		h.send("Write", handle, []byte("hello")).gives(5, "")
		gets(t, data, "hello")
	}
	p.silent(h)
}

func TestWithoutAHandshakeThereIsNoChannel(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	for op, args := range map[string][]any{"Read": {1, 5}, "Write": {1, []byte("abc")}} {
		call := h.start(op, args...)
		params := map[string]string{"Read": "[1,5]", "Write": `[1,""]`}[op]
		p.fail(p.expect("tls."+op, params),
			"tls."+op+": handle 1: the handshake is not done")
		call.fails("tls." + op + ": handle 1: the handshake is not done")
	}
	p.noDescriptor(h, "state", -32002, beforeHandshake)

	// A failed handshake leaves no channel.
	shake := h.start("Handshake", 1)
	id := p.expect("tls.Handshake", "[1,1]")
	data := p.channel()
	p.fail(id, "no")
	shake.fails("no")
	if n, err := data.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a Read from the channel of a failed handshake returns %d, %v; want "+
			"0, io.EOF", n, err)
	}
	p.noDescriptor(h, "state", -32002, beforeHandshake)
}

// noDescriptor checks the text of the error that tls.Descriptor gives if tlsd answers tls.Status
// with an error of this kind.
func (p *peer) noDescriptor(h *host, kind string, code int, want string) {
	p.t.Helper()
	r := p.answers(h.send("Descriptor", 1), "tls.Status", fmt.Sprintf(
		`"error":{"code":%d,"message":"m","data":{"kind":%q}}`, code, kind))
	if r.N != -1 || r.Text != want {
		p.t.Errorf("Descriptor gives %d, %q; want %q", r.N, r.Text, want)
	}
	h.errorOf(kind, code)
}

const beforeHandshake = "tls.Descriptor: handle 1: " +
	"the connection has no descriptor before its handshake"

// Only tlsd knows which handles exist. So if a handle has no data channel, tls.Descriptor asks tlsd
// for the reason.
func TestOnlyTlsdKnowsWhetherThereIsAHandle(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.noDescriptor(h, "handle", -32001,
		"tls.Descriptor: handle 1: no such connection or context")
	p.noDescriptor(h, "state", -32002, beforeHandshake)
	p.noDescriptor(h, "limit", -32011, "m")
	// tlsd knows the handle, but the plugin has no data channel for it. The error is the same
	// as before the handshake.
	r := p.answers(h.send("Descriptor", 1), "tls.Status",
		`"result":{"read":"open","write":"open","received":0,"sent":0}`)
	if r.N != -1 || r.Text != beforeHandshake {
		t.Errorf("Descriptor gives %d, %q; want -1, %q", r.N, r.Text, beforeHandshake)
	}
	h.errorOf("state", -32002)
}

func TestASecondHandshakeSendsNoSecondDescriptor(t *testing.T) {
	t.Parallel()
	_, h, p, _ := ready(t)
	again := h.start("Handshake", 1)
	p.result(p.expect("tls.Handshake", "[1]"), "0")
	again.gives(0, "")

	// Two Handshakes at once send a descriptor each. tlsd refuses the second one. So the plugin
	// calls again, without a descriptor.
	p.client(h, 2)
	calls := []*pending{h.start("Handshake", 2)}
	first := p.expect("tls.Handshake", "[2,1]")
	calls = append(calls, h.start("Handshake", 2))
	second := p.expect("tls.Handshake", "[2,1]")
	p.result(first, "0")
	calls[0].gives(0, "")
	p.fail(second, "tls.Handshake: handle 2: it has a data channel")
	p.result(p.expect("tls.Handshake", "[2]"), "0")
	calls[1].gives(0, "")
}

// At the end of the data, the plugin asks tlsd once for the reason. Later Reads give the same
// result without a question.
func TestTheEndOfTheDataIsAskedForOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ status, error string }{
		"the peer's close_notify": {readEnd, ""},
		"a failure":               {readReset, "tls.Read: handle 1: cut"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p, data := ready(t)
			puts(t, data, "last")
			data.CloseWrite()
			h.send("Read", 1, 100).reads("last")
			read := h.start("Read", 1, 100)
			p.statusOf(1, c.status)
			check := func(call *pending) {
				if c.error == "" {
					call.gives(0, "")
				} else {
					call.fails(c.error)
				}
			}
			check(read)
			check(h.send("Read", 1, 100)) // sends no request
			h.send("Write", 1, []byte("still open")).gives(10, "")
			gets(t, data, "still open")
			p.silent(h)
		})
	}
}

// stops closes the reading half of tlsd's end, so that the plugin's next send fails.
func stops(t *testing.T, data *net.UnixConn) {
	t.Helper()
	if err := data.CloseRead(); err != nil {
		t.Fatal(err)
	}
}

// If the plugin cannot send, it asks tlsd for the reason. This Write and all later ones fail with
// that reason.
func TestAWriteThatCannotBeSentRaisesWhatHasHappenedAndSoDoLaterOnes(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	stops(t, data)
	write := h.start("Write", 1, []byte("x"))
	p.statusOf(1, writeFail)
	write.fails(broken)
	for range 2 {
		h.send("Write", 1, []byte("x")).fails(broken)
	}
	// Data of the peer can still be read.
	puts(t, data, "an answer")
	h.send("Read", 1, 100).reads("an answer")
	p.silent(h)
	closing := h.start("Close", 1)
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "") // the error has been reported before
}

func TestAWriteThatWaitsForRoomEndsWhenTheDirectionHasFailed(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	write := h.start("WriteZeros", 1, 16<<20)
	h.untilAThreadWaits()
	// The bytes that were sent stay unread, so Linux does not wake the Write out of poll(2).
	// The plugin must try again by itself after a short time.
	stops(t, data)
	p.statusOf(1, writeFail)
	write.fails(broken)
}

// An error of writing can become known after the Write has returned. Then the next call on the
// handle fails with this error, whatever the call is. After this call only Writes fail with it.
func TestTheNextCallRaisesAnErrorOfWritingOnce(t *testing.T) {
	t.Parallel()
	// learnt returns a host with an error of writing that no call has reported. The plugin has
	// learnt it from the status that tlsd gives at the end of reading.
	learnt := func(t *testing.T) (*host, *peer) {
		_, h, p, data := ready(t)
		h.send("Write", 1, []byte("a")).gives(1, "")
		data.CloseWrite()
		read := h.start("Read", 1, 10)
		p.statusOf(1, endAndFail)
		read.gives(0, "") // a Read reports the end of reading first
		return h, p
	}
	for name, args := range map[string][]any{
		"Write": {1, []byte("b")}, "Read": {1, 10}, "PeerCertSubject": {1}, "Version": {1},
		"Handshake": {1}, "SetTimeout": {1, 10},
		"SetInsecureSkipVerify": {1, 1}, "Shutdown": {1}, "Descriptor": {1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, p := learnt(t)
			h.send(name, args...).fails(broken)
			p.silent(h)
			if name == "PeerCertSubject" {
				again := h.start(name, args...)
				p.fail(p.expect("tls.PeerCertSubject", "[1]"), "something else")
				again.fails("something else")
			}
		})
	}
	t.Run("Close", func(t *testing.T) {
		t.Parallel()
		h, p := learnt(t)
		closing := h.start("Close", 1)
		p.result(p.expect("tls.Close", "[1]"), "0")
		closing.fails(broken)
		closing = h.start("Close", 1)
		p.fail(p.expect("tls.Close", "[1]"), "tls.Close: handle 1: closed")
		closing.fails("tls.Close: handle 1: closed")
	})
	t.Run("Read", func(t *testing.T) {
		t.Parallel()
		h, _ := learnt(t)
		h.send("Read", 1, 10).fails(broken)
		h.send("Read", 1, 10).gives(0, "")
	})
	t.Run("not behind the error of reading", func(t *testing.T) {
		t.Parallel()
		_, h, p, data := ready(t)
		data.CloseWrite()
		read := h.start("Read", 1, 10)
		p.statusOf(1,
			`{"read":"failed","write":"failed","received":0,"sent":0,"readError":{"code":1,"message":"tls.Read: handle 1: read: reset"},`+
				`"writeError":{"code":1,"message":"tls.Write: handle 1: write: reset"}}`)
		read.fails("tls.Read: handle 1: read: reset")
		h.send("Read", 1, 10).fails("tls.Read: handle 1: read: reset")
		h.send("Write", 1, []byte("x")).fails("tls.Write: handle 1: write: reset")
		closing := h.start("Close", 1)
		p.result(p.expect("tls.Close", "[1]"), "0")
		closing.gives(0, "")
	})
	t.Run("Close, whose answer has it", func(t *testing.T) {
		t.Parallel()
		_, h, p, _ := ready(t)
		closing := h.start("Close", 1)
		p.fail(p.expect("tls.Close", "[1]"), broken)
		closing.fails(broken)
	})
}

// The peer may end the connection, and then reset it. If the host has written nothing, it has lost
// nothing. So the reset is no error of a call that comes afterwards, and only a Write fails.
func TestAnErrorOfWritingIsNoneOfAHostThatHasWrittenNothing(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	onlyAWriteFails(h, p, data)
}

// onlyAWriteFails ends the stream of handle 1, whose Writes fail. It expects that a Write fails,
// and that the calls before and after the Write do not.
func onlyAWriteFails(h *host, p *peer, data *net.UnixConn) {
	h.t.Helper()
	data.CloseWrite()
	read := h.start("Read", 1, 10)
	p.statusOf(1, endAndFail)
	read.gives(0, "")
	h.send("Read", 1, 10).gives(0, "")
	h.send("Write", 1, []byte("x")).fails(broken)
	closing := h.start("Close", 1)
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "")
}

// A strict Write (TLSD_STRICT_WRITES=1) also calls tls.Flush. So it returns only when tlsd has sent
// all bytes of the Write to the peer.
func TestStrictWritesWaitUntilAllHasLeft(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t, "TLSD_STRICT_WRITES=1")
	write := h.start("Write", 1, []byte("abc"))
	p.result(p.expect("tls.Flush", "[1,3]"), "0")
	write.gives(3, "")
	write = h.start("Write", 1, []byte("de"))
	id := p.expect("tls.Flush", "[1,5]")
	p.fail(id, "tls.Flush: handle 1: broken pipe")
	write.fails(broken) // the text names tls.Write, because the host has not called tls.Flush
	h.send("SetStrictWrites", 2).fails("tls.SetStrictWrites: on 2: must be 0 or 1")
	h.send("SetStrictWrites", 0).gives(0, "")
	h.send("Write", 1, []byte("f")).gives(1, "")
	gets(t, data, "abcdef")
	p.silent(h)
}

// If a strict Write has failed, a later Read or Close does not fail with the same error.
func TestAStrictWriteTellsItsErrorOnce(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t, "TLSD_STRICT_WRITES=1")
	write := h.start("Write", 1, []byte("abc"))
	p.fail(p.expect("tls.Flush", "[1,3]"), "tls.Flush: handle 1: broken pipe")
	write.fails(broken)
	onlyAWriteFails(h, p, data)
}

func TestAfterAShutdownNothingCanBeWrittenAndReadingGoesOn(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	end := h.start("Shutdown", 1)
	p.result(p.expect("tls.Shutdown", "[1]"), "0")
	end.gives(0, "")
	h.send("Shutdown", 1).gives(0, "") // sends no request
	h.send("Write", 1, []byte("x")).fails("tls.Write: handle 1: tls.Shutdown has ended this " +
		"direction")
	puts(t, data, "more")
	h.send("Read", 1, 10).reads("more")
	p.silent(h)
}

func TestTheDescriptorIsReadableWhenAReadWouldNotWait(t *testing.T) {
	t.Parallel()
	_, h, _, data := ready(t)
	r := h.call("Descriptor", 1)
	if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", h.PID, r.N)); err != nil ||
		!strings.HasPrefix(link, "socket:") {
		t.Fatalf("tls_Descriptor gives %d, which is %s, %v; want a socket", r.N, link, err)
	}
	readable := func() int64 { return h.call("readable", r.N).N }
	if readable() != 0 {
		t.Error("the descriptor is readable, though there is nothing to read")
	}
	puts(t, data, "x")
	if readable() != 1 {
		t.Error("the descriptor is not readable, though there is something to read")
	}
	h.send("Read", 1, 10).reads("x")
	if readable() != 0 {
		t.Error("the descriptor is still readable after all data was read")
	}
	data.CloseWrite()
	if readable() != 1 {
		t.Error("the descriptor is not readable at the end of the data")
	}
}

// The plugin itself ends a Read that waits too long. The time is that of tls.SetTimeout, or by
// default the one of tlsd's answer to tls.Hello.
func TestAReadHasItsOwnTimeout(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	client := h.start("NewClient", "h", 1)
	p := d.accept()
	id, _ := p.helloOnly()
	p.result(id, `{"version":1,"capabilities":["data"],"timeouts":{"read":30,"write":1}}`)
	p.result(p.expect("tls.NewClient", `["h",1]`), "1")
	client.gives(1, "")
	set := h.start("SetTimeout", 1, 40) // before there is a channel
	p.result(p.expect("tls.SetTimeout", "[1,40]"), "0")
	set.gives(0, "")
	p.shake(h, 1)
	h.send("Read", 1, 10).fails("tls.Read: handle 1: no data within 40ms")
	set = h.start("SetTimeout", 1, 0)
	p.result(p.expect("tls.SetTimeout", "[1,0]"), "0")
	set.gives(0, "")
	h.send("Read", 1, 10).fails("tls.Read: handle 1: no data within 30ms")
	p.silent(h)
}

func TestCancelEndsReadsAndWritesOnChannels(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	p.client(h, 2)
	p.shake(h, 2)
	var reads []*pending
	for range 20 {
		reads = append(reads, h.start("Read", 1, 10), h.start("Read", 2, 10))
	}
	h.untilAThreadWaits()
	for _, read := range reads {
		// tls_Cancel does not end a Read that has not begun. So this loop calls tls_Cancel
		// until the Read ends.
		for done := false; !done; {
			h.send("Cancel").gives(0, "")
			select {
			case r := <-read.Result():
				done = true
				if r.N != -1 || !strings.HasSuffix(r.Text,
					": cancelled by the caller") {
					t.Errorf("a cancelled Read gives %d, %q; want -1, and the "+
						"text \"…: cancelled by the caller\"", r.N, r.Text)
				}
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	puts(t, data, "x")
	h.send("Read", 1, 10).reads("x")

	write := h.start("WriteZeros", 1, 16<<20)
	h.untilAThreadWaits()
	h.send("Cancel").gives(0, "")
	write.fails("tls.Write: handle 1: cancelled by the caller")
	h.send("Write", 1, []byte("x")).fails("tls.Write: handle 1: an earlier Write was cut short")
	h.send("Shutdown", 1).fails("tls.Shutdown: handle 1: an earlier Write was cut short")
	puts(t, data, "y")
	h.send("Read", 1, 10).reads("y")
	p.silent(h)

	// The peer must not get close_notify, because a Write was cut short. So the plugin closes
	// the channel before it sends tls.Close.
	closing := h.start("Close", 1)
	p.expect("tls.Close", "[1]")
	if !hungUp(t, data) {
		t.Error("the channel is not hung up before tls.Close is sent, though a Write was " +
			"cut short")
	}
	p.conn.Close()
	closing.fails("tls.Close: handle 1: lost: ")
}

// hungUp says whether the plugin's end has been closed, or shut down in both directions.
func hungUp(t *testing.T, data *net.UnixConn) bool {
	t.Helper()
	raw, err := data.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var events int16
	raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		unix.Poll(p, 0)
		events = p[0].Revents
	})
	return events&unix.POLLHUP != 0
}

func TestACloseEndsWhatOtherThreadsDoOnTheConnection(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	read, second := h.start("Read", 1, 10), h.start("Read", 1, 10)
	write := h.start("WriteZeros", 1, 16<<20)
	h.untilAThreadWaits()
	testkit.Until(t, "much of the Write has arrived", func() bool {
		return testkit.Unread(t, data) >= 100_000
	})
	closing := h.start("Close", 1)
	id := p.expect("tls.Close", "[1]")
	const ended = "handle 1: the handle was closed while the call waited"
	for _, c := range []*pending{read, second, write} {
		if r := c.wait(); r.N != -1 || !strings.HasSuffix(r.Text, ended) {
			t.Errorf("%s gives %d, %q; want -1, %q", c.Op, r.N, r.Text, ended)
		}
	}
	if !hungUp(t, data) {
		t.Error("Close has cut a Write short, but the channel is not hung up")
	}
	p.result(id, "0")
	closing.gives(0, "")
}

// If no Write was cut short, the plugin closes the data channel only after tlsd has answered
// tls.Close. Otherwise the peer would get no close_notify.
func TestACloseLeavesTheChannelOpenUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	h.send("Write", 1, []byte("abc")).gives(3, "")
	closing := h.start("Close", 1)
	id := p.expect("tls.Close", "[1]")
	if hungUp(t, data) {
		t.Error("the channel is hung up before tls.Close is answered")
	}
	gets(t, data, "abc")
	p.result(id, "0")
	closing.gives(0, "")
	if n, err := data.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the Close, a Read from the channel returns %d, %v; want 0, io.EOF",
			n, err)
	}
}

func TestTwoThreadsThatReadGetEachByteOnce(t *testing.T) {
	t.Parallel()
	_, h, _, data := ready(t)
	one, two := h.start("Read", 1, 2), h.start("Read", 1, 2)
	puts(t, data, "abcd")
	got := []string{one.wait().Text, two.wait().Text}
	if !(got[0] == "ab" && got[1] == "cd") && !(got[0] == "cd" && got[1] == "ab") {
		t.Errorf("the threads have read %q; want \"ab\" and \"cd\"", got)
	}
}

func TestALostSessionEndsItsReadsAndWrites(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(p *peer, data *net.UnixConn){
		"channels first": func(p *peer,
			data *net.UnixConn) {
			data.Close()
			p.conn.Close()
		},
		"control first": func(p *peer, data *net.UnixConn) { p.conn.Close(); data.Close() },
		"control, and another finds it": func(p *peer,
			data *net.UnixConn) {
			p.conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p, data := ready(t)
			p.client(h, 2)
			other := p.shake(h, 2)
			read := h.start("Read", 1, 10)
			h.untilAThreadWaits()
			write := h.start("WriteZeros", 2, 16<<20)
			testkit.Until(t, "much of the Write has arrived", func() bool {
				return testkit.Unread(t, other) >= 100_000
			})
			lose(p, data)
			if strings.Contains(name, "another") {
				h.send("Subject", 1).fails("tls.PeerCertSubject: handle 1: lost: ")
			} else {
				other.Close()
			}
			read.fails("tls.Read: handle 1: lost: tlsd")
			write.fails("tls.Write: handle 2: lost: tlsd")
			h.send("Read", 1, 1).fails("tls.Read: handle 1: lost: tlsd")
			h.send("Descriptor", 1).fails("tls.Descriptor: handle 1: lost: tlsd")
		})
	}
}

// If tlsd ends a data channel, and its answer to tls.Status gives no good reason, the Read fails.
// If the answer is not even an object, the session is lost, too. The host goes on.
func TestChannelsThatAreWrongAreAnErrorAndNothingElse(t *testing.T) {
	t.Parallel()
	const unsaid = "tlsd has ended this connection's data channel and does not say why"
	for name, c := range map[string]struct {
		status string
		want   string
	}{
		"no reason":       {allOpen, "tls.Read: handle 1: " + unsaid},
		"an empty object": {"{}", "tls.Read: handle 1: " + unsaid},
		"garbage": {`{"read":5,"write":[],"readError":"x"}`,
			"tls.Read: handle 1: " + unsaid},
		"no error in it": {`{"read":"failed"}`, "tlsd does not say what has failed"},
		"error is no text": {`{"read":"failed","readError":{"message":5}}`,
			"tlsd does not say what has failed"},
		"twice": {`{"read":"end","read":"open"}`, "tls.Read: handle 1: " + unsaid},
		"not an object": {`"end"`, "tls.Read: handle 1: lost: tlsd has answered " +
			"tls.Status with an impossible result"},
		"a number": {`0`, "tls.Read: handle 1: lost: tlsd has answered tls.Status with " +
			"an impossible result"},
		"an error": {"", "no such thing"},
		"longer than a text": {`{"read":"failed","readError":{"message":"` +
			strings.Repeat("é", 5000) + `"}}`, "éééé"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p, data := ready(t)
			data.Close() // before the Read begins
			read := h.start("Read", 1, 10)
			id := p.expect("tls.Status", "[1]")
			if c.status == "" {
				p.fail(id, "no such thing")
			} else {
				p.result(id, c.status)
			}
			read.fails(c.want)
		})
	}
	t.Run("reset with unread data", func(t *testing.T) {
		t.Parallel()
		_, h, p, data := ready(t)
		h.send("Write", 1, []byte("never read")).gives(10, "")
		puts(t, data, "first")
		data.Close()
		h.send("Read", 1, 100).reads("first")
		read := h.start("Read", 1, 100)
		p.statusOf(1, readReset)
		read.fails("tls.Read: handle 1: cut")
	})
}

func TestWithoutAFreeDescriptorThereIsALimitError(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	h.send("nofile", 0).gives(0, "")
	const limit = "limit: no descriptor for the data of the connection: "
	h.send("Handshake", 1).fails("tls.Handshake: handle 1: "+limit, "raise RLIMIT_NOFILE")
	h.errorOf("limit", -32011)
	h.send("Accept", 2, "::", 1).fails("tls.Accept: handle 2: "+limit, "raise RLIMIT_NOFILE")
	h.errorOf("limit", -32011)
	h.send("nofile", 1024).gives(0, "")
	p.shake(h, 1)
}

// untilAThreadWaits returns when a thread besides the main one waits in poll(2).
func (h *host) untilAThreadWaits() {
	h.t.Helper()
	h.untilAThreadIsIn(unix.SYS_POLL, unix.SYS_PPOLL)
}

// untilThreadsWait returns when at least n threads besides the main one exist, and each of them
// waits in poll(2), in connect(2) or for another thread.
func (h *host) untilThreadsWait(n int) {
	h.t.Helper()
	waits := []int{unix.SYS_POLL, unix.SYS_PPOLL, unix.SYS_FUTEX, unix.SYS_CONNECT}
	testkit.Until(h.t, "all threads of the host but the main one wait", func() bool {
		calls := h.otherThreads()
		return len(calls) >= n && !slices.ContainsFunc(calls,
			func(call int) bool { return !slices.Contains(waits, call) })
	})
}

// otherThreads returns the number of the current system call of each thread but the main one: -1
// for a thread in no system call.
func (h *host) otherThreads() (calls []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", h.PID))
	for _, task := range tasks {
		if filepath.Base(task) == fmt.Sprint(h.PID) {
			continue
		}
		// the file begins with the number of the system call, proc_pid_syscall(5)
		call, _ := os.ReadFile(task + "/syscall")
		number := -1
		fmt.Sscan(string(call), &number)
		calls = append(calls, number)
	}
	return calls
}

// untilAThreadIsIn returns when a thread besides the main one is in one of these system calls.
func (h *host) untilAThreadIsIn(calls ...int) {
	h.t.Helper()
	testkit.Until(h.t, "a thread of the host waits in a system call", func() bool {
		return slices.ContainsFunc(h.otherThreads(),
			func(call int) bool { return slices.Contains(calls, call) })
	})
}

// If a program exits after a Write, without tls.Close, the peer still gets all data.
func TestWhatWasWrittenArrivesThoughTheHostEndsWithoutAClose(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	got := make(chan int, 1)
	ca, port := serving(t, func(conn *tls.Conn) {
		n, _ := io.Copy(io.Discard, conn)
		got <- int(n)
	})
	h := connected(t, ca, port, d.env())
	for range 30 {
		h.send("WriteZeros", 1, 50_000).gives(50_000, "")
	}
	h.send("exit")
	if n := testkit.Receive(t, got, "the server has read to the end"); n != 30*50_000 {
		t.Errorf("%d bytes have arrived, want %d", n, 30*50_000)
	}
}

// A Write succeeds before its data has been sent to the peer. A Close right after it does not cut
// the data short, even if the peer is slow.
func TestACloseDoesNotCutShortWhatRunsAhead(t *testing.T) {
	t.Parallel()
	// Usually the system's buffers to the peer hold only a part of these bytes. The rest waits
	// in tlsd and in the data channel. With more bytes the Writes would wait for the slow peer.
	const writes, size = 23, 250_000
	d := startTLSD(t)
	got := make(chan int64, 1)
	ca, port := serving(t, func(conn *tls.Conn) {
		conn.NetConn().(*net.TCPConn).SetReadBuffer(32 << 10)
		conn.Handshake()
		time.Sleep(1200 * time.Millisecond) // a slow peer
		n, err := io.Copy(io.Discard, conn)
		if err != nil {
			t.Error(err)
		}
		got <- n
	})
	h := connected(t, ca, port, d.env())
	for range writes {
		h.send("WriteZeros", 1, size).gives(size, "")
	}
	h.send("Close", 1).gives(0, "")
	if n := testkit.Receive(t, got, "the server has read to the end"); n != writes*size {
		t.Errorf("%d bytes have arrived of %d", n, writes*size)
	}
}

// When Close returns, part of the data may still be on its way to the peer. The peer gets all of
// it, and close_notify, even if the host exits at once, and even if the peer sends data that the
// host does not read.
func TestWhatWasWrittenArrivesAfterTheCloseAndTheHostsEnd(t *testing.T) {
	t.Parallel()
	const writes, size = 30, 10_000
	type outcome struct {
		n   int64
		err error
	}
	for _, mode := range []string{"TLSD_STRICT_WRITES=0", "TLSD_STRICT_WRITES=1"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := startTLSD(t, "--close-timeout=60s")
			left := make(chan struct{})
			got := make(chan outcome, 1)
			ca, port := serving(t, func(conn *tls.Conn) {
				// with a small buffer here, most data waits in tlsd
				conn.NetConn().(*net.TCPConn).SetReadBuffer(32 << 10)
				conn.Handshake()
				<-left
				var o outcome
				for o.err == nil {
					var n int64
					n, o.err = io.CopyN(io.Discard, conn, size)
					o.n += n
					// If tlsd had closed its socket already, this data would
					// bring back a reset.
					conn.Write(make([]byte, 100))
					// Slow, so that the session has ended before the peer has
					// read all data.
					time.Sleep(10 * time.Millisecond)
				}
				got <- o
			})
			h := connected(t, ca, port, d.env(), mode)
			for range writes {
				h.send("WriteZeros", 1, size).gives(size, "")
			}
			h.send("Close", 1).gives(0, "")
			h.send("exit")
			<-h.Left
			close(left)
			o := testkit.Receive(t, got, "the server has read to the end")
			if o.n != writes*size || o.err != io.EOF {
				t.Errorf("%d bytes of %d have arrived, and then the peer's Read "+
					"returns %v; want all bytes, and then io.EOF", o.n,
					writes*size, o.err)
			}
		})
	}
}

// serving starts a TLS server. It returns the file of the CA of its certificate, and its port.
func serving(t *testing.T, serve func(*tls.Conn)) (ca string, port int) {
	t.Helper()
	authority := testcert.NewCA(t, "Test CA")
	cert := authority.Localhost(t)
	return authority.File, testkit.ServeTLS(t, cert.Config(), serve)
}

// If the peer closes the connection, one of the next Writes fails, and so does a Read after this
// Write. This test uses the real tlsd.
func TestAWriteAndAReadFailWhenThePeerIsGone(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca, port := serving(t, func(conn *tls.Conn) {
		conn.Handshake()
		conn.NetConn().Close()
	})
	h := connected(t, ca, port, d.env())
	failed := ""
	for range 1000 {
		if r := h.call("WriteZeros", 1, 1000); r.N < 0 {
			failed = r.Text
			break
		}
	}
	if !strings.HasPrefix(failed, "tls.Write: handle 1: ") {
		t.Errorf("1000 Writes to a peer that is gone give the error %q; want one of "+
			"tls.Write", failed)
	}
	if r := h.call("Read", 1, 10); r.N >= 0 {
		t.Errorf("a Read after the failed Write gives %d; want -1", r.N)
	}
}
