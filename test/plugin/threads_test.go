package plugin

import (
	"fmt"
	"testing"
)

func TestACloseEndsTheCallsThatWaitOnItsHandle(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.client(h, 2)
	read := h.start("Read", 1, 10)
	readID := p.expect("tls.Read", "[1,10]")
	write := h.start("Write", 1, []byte("ab"))
	writeID := *p.request().ID
	shake := h.start("Handshake", 1)
	shakeID := p.expect("tls.Handshake", "[1]")
	other := h.start("Read", 2, 10)
	otherID := p.expect("tls.Read", "[2,10]")

	closing := h.start("Close", 1)
	cancelled := map[string]bool{}
	for range 3 {
		r := p.request()
		if r.Method != "$/cancelRequest" || r.ID != nil {
			t.Fatalf("Close sends %s first", r.Method)
		}
		cancelled[string(r.Params)] = true
	}
	for _, id := range []int64{readID, writeID, shakeID} {
		if !cancelled[fmt.Sprintf("[%d]", id)] {
			t.Errorf("call %d is not cancelled but %v", id, cancelled)
		}
		p.fail(id, "cancelled")
	}
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "")
	read.fails("cancelled")
	write.fails("cancelled")
	shake.fails("cancelled")
	p.blob(otherID, "x")
	other.reads("x")
}

func TestACloseOfTheWrongSortCancelsNothing(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	accept := h.start("Accept", 7, "::", 1)
	acceptID := p.expect("tls.Accept", `[7,"::",1]`)
	read := h.start("Read", 1, 10)
	readID := p.expect("tls.Read", "[1,10]")

	for op, handle := range map[string]int{"Close": 7, "CloseServerContext": 1} {
		closing := h.start(op, handle)
		p.fail(p.expect("tls."+op, fmt.Sprintf("[%d]", handle)), "of the other sort") // and no $/cancelRequest before it
		closing.fails("of the other sort")
	}

	closing := h.start("CloseServerContext", 7)
	if id := p.expect("$/cancelRequest", fmt.Sprintf("[%d]", acceptID)); id != 0 {
		t.Error("a cancellation that wants an answer")
	}
	closeID := p.expect("tls.CloseServerContext", "[7]")
	second := h.start("CloseServerContext", 7) // does not cancel the first
	p.expect("$/cancelRequest", fmt.Sprintf("[%d]", acceptID))
	p.fail(p.expect("tls.CloseServerContext", "[7]"), "closed")
	second.fails("closed")
	p.fail(acceptID, "cancelled")
	p.result(closeID, "0")
	accept.fails("cancelled")
	closing.gives(0, "")
	p.blob(readID, "x")
	read.reads("x")
}

func TestWhoeverWaitsTakesTheReading(t *testing.T) {
	t.Parallel()
	// The first to wait reads for all; each time it is the one that ends, another must go on.
	_, h, p := opened(t)
	const n = 8
	var calls []*pending
	var ids []int64
	for i := range n {
		calls = append(calls, h.start("Read", i+1, 100))
		ids = append(ids, p.expect("tls.Read", fmt.Sprintf("[%d,100]", i+1)))
	}
	for i := range n {
		p.blob(ids[i], fmt.Sprint("data ", i))
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
			read := h.start("Read", 1, 100)
			p.expect("tls.Read", "[1,100]")
			accept := h.start("Accept", 2, "::", 1)
			p.expect("tls.Accept", `[2,"::",1]`)
			// Nobody reads what these send: the first waits in the middle of its blob, the others for their turn.
			var calls []*pending
			for range 3 {
				calls = append(calls, h.start("WriteZeros", 1, 16<<20))
			}
			p.in.Peek(1) // one has begun
			lose(p)
			for _, c := range append(calls, read, accept) {
				c.fails("tls.", ": lost: ") // LastError is the process's: it may be another's
			}
		})
	}
}
