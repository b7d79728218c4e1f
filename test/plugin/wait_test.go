package plugin

import (
	"crypto/tls"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// tls_Wait, and tls_Descriptor of a context. Some tests have a stand-in for tlsd, others the real
// one.

// watched sets the option watch of a handle.
func (p *peer) watched(h *host, handle int, value string) {
	p.t.Helper()
	set := h.start("SetOption", handle, "watch", value)
	p.result(p.expect("tls.SetOption", fmt.Sprintf(`[%d,"watch",%q]`, handle, value)), "0")
	set.gives(0, "")
}

// waits calls tls_Wait with 0 ms, which returns at once. The result must be this handle, or 0 if no
// handle is ready.
func (h *host) waits(handle int64) {
	h.t.Helper()
	h.send("Wait", 0).gives(handle, "")
}

func TestWaitGivesTheHandleWhoseReadWouldNotWait(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	h.waits(0)
	puts(t, data, "x")
	h.waits(0) // connection 1 is not watched
	p.watched(h, 1, "1")
	h.waits(1)
	h.waits(1)
	h.send("Read", 1, 10).reads("x")
	h.waits(0)
	wait := h.start("Wait", -1)
	h.untilAThreadWaits()
	puts(t, data, "y")
	wait.gives(1, "")
	p.watched(h, 1, "0")
	h.waits(0)
	p.watched(h, 1, "1")
	h.send("Read", 1, 10).reads("y")
	data.CloseWrite()
	h.waits(1) // the end of the data counts as data
	read := h.start("Read", 1, 10)
	p.statusOf(1, `{"read":"end","write":"open","received":2,"sent":0}`)
	read.reads("")
	h.waits(1)
	p.silent(h)
}

func TestAWaitSeesWhatOtherThreadsChange(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	puts(t, data, "x")
	wait := h.start("Wait", -1)
	h.untilAThreadWaits()
	p.watched(h, 1, "1")
	wait.gives(1, "")
	h.send("Read", 1, 10).reads("x")

	wait = h.start("Wait", -1)
	h.untilAThreadWaits()
	closing := h.start("Close", 1) // it closes the descriptor that the Wait polls
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "")
	h.send("Cancel").gives(0, "")
	wait.fails("tls.Wait: cancelled by the caller")
	h.send("Wait", 20).gives(0, "")
	h.waits(0)
}

// Wait returns a watched connection if its Read would return at once. Before a handshake, and after
// one that has failed, a Read fails at once. While the handshake runs, Wait does not return the
// connection.
func TestAConnectionIsReadyBeforeItsHandshakeAndNotDuringIt(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.watched(h, 1, "1")
	h.waits(1)
	shaking := h.start("Handshake", 1)
	r := p.expect("tls.Handshake", "[1,1]")
	h.waits(0)
	wait := h.start("Wait", -1)
	h.untilAThreadWaits()
	p.fail(r, "no")
	shaking.fails("no")
	wait.gives(1, "") // because a Read would now fail at once
}

func TestAWaitForALostSessionIsLost(t *testing.T) {
	t.Parallel()
	d, h, p, data := ready(t)
	p.watched(h, 1, "1")
	subject := h.start("Subject", 1) // this call reads from tlsd, and so sees the end
	p.expect("tls.PeerCertSubject", "[1]")
	wait := h.start("Wait", -1)
	h.untilThreadsWait(2)
	p.conn.Close()
	subject.fails("tls.PeerCertSubject: handle 1: lost: ")
	wait.fails("tls.Wait: lost: ")
	h.send("Wait", -1).fails("tls.Wait: lost: ")
	p.client2(d, h)
	h.waits(0) // the handles of the lost session are not watched any more
	data.Close()
}

// client2 makes a connection in a new session.
func (p *peer) client2(d *standIn, h *host) {
	p.t.Helper()
	client := h.start("NewClient", "h", 1)
	p2, first := d.session()
	p2.result(p2.expect("tls.NewClient", `["h",1]`), fmt.Sprint(first))
	client.gives(first, "")
}

// If a worker dies, Wait returns each of its watched handles. A Read of the handle then says what
// has happened.
func TestAWorkersDeathMakesItsHandlesReady(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	p.watched(h, 1, "1")
	wait := h.start("Wait", -1)
	h.untilAThreadWaits()
	p.conn.Close()
	data.Close()
	wait.gives(1, "")
	h.send("Read", 1, 10).fails("tls.Read: handle 1: lost: ")
	h.send("Wait", -1).fails("tls.Wait: lost: ")
}

func TestACancelEndsAWait(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	h.send("Wait", 0).gives(0, "") // works without a session, too
	h.send("Wait", 10).gives(0, "")
	first, second := h.start("Wait", -1), h.start("Wait", 1<<30)
	h.untilThreadsWait(2)
	h.send("Cancel").gives(0, "")
	first.fails("tls.Wait: cancelled by the caller")
	second.fails("tls.Wait: cancelled by the caller")
	h.send("Wait", 10).gives(0, "")
}

func TestAChildWaitsForItsOwnHandles(t *testing.T) {
	t.Parallel()
	_, h, p, data := ready(t)
	p.watched(h, 1, "1")
	puts(t, data, "x")
	h.waits(1)
	h.send("fork").gives(0, "") // from here on the child does the commands
	h.waits(0)
	h.send("Wait", 10).gives(0, "")
	h.send("exit")
	h.child().gives(0, "")
	h.waits(1)
	h.send("Read", 1, 10).reads("x")
}

// context makes the host create a server context, and answers the call with this handle.
func (p *peer) context(h *host, handle int) {
	p.t.Helper()
	ctx := h.start("NewServerContext", "/c", "/k")
	p.result(p.expect("tls.NewServerContext", `["/c","/k"]`), fmt.Sprint(handle))
	ctx.gives(int64(handle), "")
}

// For the first tls_Descriptor of a context, the plugin makes a socket pair and sends both ends
// with tls.Signal. The descriptor is a copy of the first end. tlsd writes a byte into the second
// end when a client waits, and reads it from the first end when no client waits any more.
func TestTheDescriptorOfAContextIsTheFirstEndOfItsPair(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.context(h, 2)
	descriptor := h.start("Descriptor", 2)
	id := p.expect("tls.Signal", "[2,1]")
	polled, second := p.channel(), p.channel()
	p.result(id, "0")
	fd := descriptor.wait().N
	if fd < 3 {
		t.Fatalf("tls_Descriptor gives %d; want a descriptor, 3 or more", fd)
	}
	h.send("Descriptor", 2).gives(fd, "") // the same descriptor, without a second tls.Signal
	p.watched(h, 2, "1")
	for range 2 {
		h.waits(0)
		h.send("readable", fd).gives(0, "")
		puts(t, second, "!")
		h.send("readable", fd).gives(1, "")
		h.waits(2)
		gets(t, polled, "!") // tlsd takes the byte out of the pair
	}
	wait := h.start("Wait", -1)
	h.untilAThreadWaits()
	puts(t, second, "!")
	wait.gives(2, "")
	// The pair is no data channel: tlsd gets a Read or Write of the context, and refuses it.
	for _, op := range []string{"Read", "Write"} {
		args := map[string]any{"Read": 10, "Write": []byte("x")}
		call := h.start(op, 2, args[op])
		id := p.request().ID
		p.fail(*id, "it is a server context, not a connection")
		call.fails("it is a server context, not a connection")
	}
	closing := h.start("CloseServerContext", 2)
	p.result(p.expect("tls.CloseServerContext", "[2]"), "0")
	closing.gives(0, "")
	h.waits(0)
	// A closed descriptor counts as readable: poll(2) gives 1, with POLLNVAL.
	if h.call("readable", fd).N != 1 {
		t.Error("the context is closed, and its descriptor is still open")
	}
}

// If tls_Descriptor of a context fails, its error gives the reason, and a later call can succeed.
func TestAContextWithoutADescriptorSaysWhy(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.context(h, 2)
	h.send("nofile", 0).gives(0, "")
	h.send("Descriptor", 2).fails("tls.Descriptor: handle 2: limit: no descriptor for the "+
		"context: ", "RLIMIT_NOFILE")
	h.send("nofile", 1024).gives(0, "")
	descriptor := h.start("Descriptor", 2)
	p.fail(p.expect("tls.Signal", "[2,1]"), "no")
	descriptor.fails("no")
	// If two threads call tls_Descriptor at the same time, the plugin makes only one pair.
	first, second := h.start("Descriptor", 2), h.start("Descriptor", 2)
	p.result(p.expect("tls.Signal", "[2,1]"), "0")
	if a, b := first.wait().N, second.wait().N; a < 3 || a != b {
		t.Errorf("tls_Descriptor gives %d to one thread and %d to another; want one number",
			a, b)
	}
	p.silent(h)
}

// If the context is closed while tls_Descriptor waits for tlsd, this call fails. The session goes
// on.
func TestADescriptorOfAContextThatIsClosedMeanwhileCostsOnlyTheCall(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.context(h, 2)
	descriptor := h.start("Descriptor", 2)
	signal := p.expect("tls.Signal", "[2,1]")
	closing := h.start("CloseServerContext", 2)
	p.result(p.expect("tls.CloseServerContext", "[2]"), "0")
	closing.gives(0, "")
	p.result(signal, "0")
	descriptor.fails("tls.Descriptor: handle 2: the handle was closed while the call waited")
	p.context(h, 3) // in the same session
}

// tlsd refuses a tls_Close of a server context. So the plugin must go on watching the context.
func TestACloseOfTheWrongKindLeavesAHandleWatched(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.context(h, 2)
	descriptor := h.start("Descriptor", 2)
	p.result(p.expect("tls.Signal", "[2,1]"), "0")
	p.channel()
	second := p.channel()
	descriptor.wait()
	p.watched(h, 2, "1")
	closing := h.start("Close", 2)
	p.fail(p.expect("tls.Close", "[2]"), "it is a server context, not a connection")
	closing.fails("it is a server context, not a connection")
	puts(t, second, "!")
	h.waits(2)
}

// serves starts a real tlsd, and a host whose server context 1 listens on port. Clients connect
// with config.
func serves(t *testing.T) (h *host, port int, config *tls.Config) {
	t.Helper()
	d := startTLSD(t)
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Localhost(t)
	h = startHost(t, d.env())
	h.send("NewServerContext", cert.CertFile, cert.KeyFile).gives(1, "")
	port = int(h.call("Listen", 1, "127.0.0.1", 0).N)
	return h, port, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
}

func TestTheDescriptorOfAContextIsReadableWhileARealClientWaits(t *testing.T) {
	t.Parallel()
	h, port, config := serves(t)
	fd := h.call("Descriptor", 1).N
	if fd < 3 {
		t.Fatalf("tls_Descriptor gives %d; want a descriptor, 3 or more", fd)
	}
	readable := func(want int64) {
		t.Helper()
		testkit.Until(t, fmt.Sprintf("the command readable gives %d", want), func() bool {
			return h.call("readable", fd).N == want
		})
	}
	h.send("readable", fd).gives(0, "")
	for i := range 3 {
		dial(t, port, config)
		dial(t, port, config)
		readable(1)
		h.send("Accept", 1, "", 0).gives(int64(2*i+2), "")
		readable(1)
		h.send("Accept", 1, "", 0).gives(int64(2*i+3), "")
		h.send("readable", fd).gives(0, "")
	}
}

// One thread of the host serves 200 clients with tls_Wait. Each client sends a word, gets it back,
// and leaves.
func TestOneThreadServesManyRealClients(t *testing.T) {
	t.Parallel()
	const clients = 200
	h, port, config := serves(t)
	h.send("SetOption", 1, "watch", "1").gives(0, "")
	var talk sync.WaitGroup
	for i := range clients {
		talk.Go(func() { echoed(t, port, config, fmt.Sprintf("client %d", i)) })
	}
	for ended := 0; ended < clients; {
		switch n := h.call("Wait", -1).N; n {
		case 1:
			c := h.call("Accept", 1, "", 0).N
			h.send("SetOption", c, "watch", "1").gives(0, "")
		case 0, -1:
			t.Fatalf("Wait gives %d, and only %d of %d clients have ended", n, ended,
				clients)
		default:
			r := h.call("Read", n, 100)
			if r.N == 0 {
				h.send("Close", n).gives(0, "")
				ended++
			} else {
				h.send("Write", n, []byte(r.Text)).gives(r.N, "")
			}
		}
	}
	talk.Wait()
	h.waits(0)
}

// echoed is a client that sends word. It checks that it gets word back, and after this the end.
func echoed(t *testing.T, port int, config *tls.Config, word string) {
	conn, err := tls.Dial("tcp", testkit.Addr(port), config)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	fmt.Fprint(conn, word)
	got := make([]byte, len(word))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != word {
		t.Errorf("the client that sent %s got back %q, %v; want what it sent", word, got,
			err)
	}
	conn.CloseWrite()
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("the client that sent %s read %q, %v after its data; want the end at once",
			word, rest, err)
	}
}
