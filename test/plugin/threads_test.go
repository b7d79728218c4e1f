package plugin

import (
	"fmt"
	"testing"
)

// Threads may call at the same time. A Close ends the calls that wait on its handle.

func TestACloseEndsTheCallsThatWaitOnItsHandle(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.client(h, 2)
	shakes := []*pending{h.start("Handshake", 1)}
	ids := []int64{p.expect("tls.Handshake", "[1,1]")}
	shakes = append(shakes, h.start("Handshake", 1))
	ids = append(ids, p.expect("tls.Handshake", "[1,1]"))
	other := h.start("Handshake", 2)
	otherID := p.expect("tls.Handshake", "[2,1]")

	closing := h.start("Close", 1)
	p.cancelled(ids...)
	for _, id := range ids {
		p.fail(id, "cancelled")
	}
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "")
	for _, s := range shakes {
		s.fails("cancelled")
	}
	p.result(otherID, "0")
	other.gives(0, "")
}

// tls_Close of a server context and tls_CloseServerContext of a connection fail in tlsd. They must
// not cancel the calls that wait on the handle.
func TestACloseOfTheWrongKindCancelsNothing(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	accept := h.start("Accept", 7, "::", 1)
	acceptID := p.expect("tls.Accept", `[7,"::",1,1]`)
	read := h.start("Subject", 1)
	readID := p.expect("tls.PeerCertSubject", "[1]")

	for op, handle := range map[string]int{"Close": 7, "CloseServerContext": 1} {
		closing := h.start(op, handle)
		// The next message must be the Close itself, and no $/cancelRequest.
		p.fail(p.expect("tls."+op, fmt.Sprintf("[%d]", handle)), "of the other sort")
		closing.fails("of the other sort")
	}

	closing := h.start("CloseServerContext", 7)
	if id := p.expect("$/cancelRequest", fmt.Sprintf("[%d]", acceptID)); id != 0 {
		t.Error("$/cancelRequest has an id; it must be a notification, which has none")
	}
	closeID := p.expect("tls.CloseServerContext", "[7]")
	second := h.start("CloseServerContext", 7) // the second call must not cancel the first
	p.expect("$/cancelRequest", fmt.Sprintf("[%d]", acceptID))
	p.fail(p.expect("tls.CloseServerContext", "[7]"), "closed")
	second.fails("closed")
	p.fail(acceptID, "cancelled")
	p.result(closeID, "0")
	accept.fails("cancelled")
	closing.gives(0, "")
	p.result(readID, `"x"`)
	read.reads("x")
}

func TestAnotherThreadReadsWhenTheReaderHasItsAnswer(t *testing.T) {
	t.Parallel()
	// The first thread that waits reads the answers for all threads. When it gets its own
	// answer, another thread must go on reading.
	_, h, p := opened(t)
	const n = 8
	var calls []*pending
	var ids []int64
	for i := range n {
		calls = append(calls, h.start("Subject", i+1))
		ids = append(ids, p.expect("tls.PeerCertSubject", fmt.Sprintf("[%d]", i+1)))
	}
	for i := range n {
		p.result(ids[i], fmt.Sprintf(`"data %d"`, i))
		calls[i].reads(fmt.Sprint("data ", i))
	}
}

func TestALossEndsAllThatWaitAndAllThatSend(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(p *peer){
		"the end":                          func(p *peer) { p.conn.Close() },
		"nonsense, and the socket is open": func(p *peer) { p.send("nonsense\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p := opened(t)
			read := h.start("Subject", 1)
			p.expect("tls.PeerCertSubject", "[1]")
			accept := h.start("Accept", 2, "::", 1)
			p.expect("tls.Accept", `[2,"::",1,1]`)
			// Nobody reads these requests. One call waits in the middle of its request,
			// and the others wait for their turn.
			calls := h.clog(p, read, accept)
			lose(p)
			for _, c := range calls {
				c.fails("tls.", ": lost: ")
			}
		})
	}
}
