package plugin

import "testing"

// Calls on the handles of a lost session fail for ever. New handles belong to a new session.

// lostSession returns a host whose session has ended while calls waited on its connections 1 and 5.
func lostSession(t *testing.T) (*standIn, *host) {
	t.Helper()
	d, h, p := opened(t)
	p.client(h, 5)
	read := h.start("Subject", 1)
	p.expect("tls.PeerCertSubject", "[1]")
	write := h.start("Write", 5, []byte("ab"))
	p.request()
	p.conn.Close()
	read.fails("tls.PeerCertSubject: handle 1: ", "lost: tlsd has closed the session")
	write.fails("tls.Write: handle 5: ", "lost: tlsd has closed the session")
	return d, h
}

func TestALostSessionsHandlesStayDead(t *testing.T) {
	t.Parallel()
	d, h := lostSession(t)
	dead := func() {
		t.Helper()
		h.send("Subject", 1).fails("tls.PeerCertSubject: handle 1: lost: ")
		h.send("Write", 5, []byte{}).fails("tls.Write: handle 5: lost: ")
		h.send("Close", 5).fails("tls.Close: handle 5: lost: ")
		h.send("PeerCertSubject", 3).fails("tls.PeerCertSubject: handle 3: lost: ")
		h.send("Version", 5).fails("tls.Version: handle 5: lost: ")
		h.send("Accept", 5, "::", 1).fails("tls.Accept: handle 5: lost: ")
	}
	dead()
	h.send("Subject", 6).fails("tls.PeerCertSubject: handle 6: no such handle")

	call := h.start("NewClient", "again", 1)
	p, first := d.session()
	if first != 6 {
		t.Errorf("the new session begins with handle %d; want 6", first)
	}
	p.result(p.expect("tls.NewClient", `["again",1]`), "6")
	call.gives(6, "")
	dead() // sends no request to the new session
	handshake := h.start("Handshake", 6)
	p.result(p.expect("tls.Handshake", "[6,1]"), "0")
	handshake.gives(0, "")
}

// If the session ends before the host has got a new handle, the next session gives the same number
// to its first handle.
func TestAHandleThatWasNotHandedOutDoesNotCount(t *testing.T) {
	t.Parallel()
	d, h := lostSession(t)
	call := h.start("NewServerContext", "/c", "/k")
	p, _ := d.session()
	p.expect("tls.NewServerContext", `["/c","/k"]`)
	p.conn.Close() // tlsd has made handle 6, but the host has not got it
	call.fails("tls.NewServerContext: lost: tlsd has closed the session")

	backend := h.start("Backend")
	p, first := d.session()
	if first != 6 {
		t.Errorf("the new session begins with handle %d; want 6", first)
	}
	for range 2 { // two calls of tls_Backend, for the length and the text
		p.result(p.expect("tls.Backend", "[]"), `"openssl"`)
	}
	backend.gives(7, "openssl")
}

// If a session ends while no call waits, tls.NewClient opens a new session and succeeds. Calls on
// the old handles fail. If tlsd has sent a reason, the errors have it.
func TestASessionThatEndedWhileNobodyCalledIsReplacedUnnoticed(t *testing.T) {
	t.Parallel()
	for name, farewell := range map[string]string{
		"silently":      "",
		"with a word":   `{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"idle for too long"}}` + "\n",
		"half a word":   `{"jsonrpc":"2.0",`,
		"without sense": "x\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, h, p := opened(t)
			p.conn.Write([]byte(farewell))
			p.close()
			call := h.start("NewClient", "again", 1)
			p, first := d.session()
			if first != 2 {
				t.Errorf("the new session begins with handle %d; want 2", first)
			}
			p.result(p.expect("tls.NewClient", `["again",1]`), "2")
			call.gives(2, "")
			why := "tls.PeerCertSubject: handle 1: lost: tlsd has closed the session"
			if name == "with a word" {
				why = "tls.PeerCertSubject: handle 1: lost: idle for too long"
			} else if name == "without sense" {
				why = "tls.PeerCertSubject: handle 1: lost: tlsd has sent a line " +
					"that is no answer"
			}
			h.send("Subject", 1).fails(why)
		})
	}
}

func TestACallOnAHandleLearnsThatTheSessionHasEnded(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	p.close()
	h.send("Write", 1, []byte("ab")).fails("tls.Write: handle 1: lost: tlsd")
	h.send("Subject", 1).fails("tls.PeerCertSubject: handle 1: lost: tlsd")
}

func TestTheCABundleIsSetAgainInANewSession(t *testing.T) {
	t.Parallel()
	d, h, p := opened(t)
	for _, path := range []string{"/old.pem", "/new.pem"} {
		ca := h.start("SetCaBundle", path)
		p.result(p.expect("tls.SetCaBundle", `["`+path+`"]`), "0")
		ca.gives(0, "")
	}
	ca := h.start("SetCaBundle", "/bad.pem") // this call fails, so /new.pem still counts
	p.fail(p.expect("tls.SetCaBundle", `["/bad.pem"]`),
		"tls.SetCaBundle: /bad.pem: no such file")
	ca.fails("tls.SetCaBundle: /bad.pem")
	p.close()

	// A call that needs no trusted CAs does not need the bundle.
	context := h.start("NewServerContext", "/c", "/k")
	p, _ = d.session()
	p.result(p.expect("tls.NewServerContext", `["/c","/k"]`), "2")
	context.gives(2, "")

	// If the bundle cannot be set, NewClient fails, and so does the next NewClient. The
	// system's store is never used instead.
	for range 2 {
		client := h.start("NewClient", "h", 1)
		p.fail(p.expect("tls.SetCaBundle", `["/new.pem"]`), "tls.SetCaBundle: /new.pem: "+
			"no such file")
		client.fails("tls.SetCaBundle: /new.pem: no such file")
	}
	client := h.start("NewClient", "h", 1)
	p.result(p.expect("tls.SetCaBundle", `["/new.pem"]`), "0")
	p.result(p.expect("tls.NewClient", `["h",1]`), "3")
	client.gives(3, "")
	p.client(h, 4) // the bundle is not set a second time
}

// If the first call of a new session sets a CA bundle, the plugin does not set the older one.
func TestACABundleSetInANewSessionIsTheOne(t *testing.T) {
	t.Parallel()
	d, h, p := opened(t)
	ca := h.start("SetCaBundle", "/old.pem")
	p.result(p.expect("tls.SetCaBundle", `["/old.pem"]`), "0")
	ca.gives(0, "")
	p.close()

	ca = h.start("SetCaBundle", "/new.pem")
	p, _ = d.session()
	p.result(p.expect("tls.SetCaBundle", `["/new.pem"]`), "0")
	ca.gives(0, "")
	p.client(h, 2)
}

func TestLostSessionsLeaveNoDescriptorsBehind(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	var before string
	for i := range 5 {
		call := h.start("NewClient", "h", 1)
		p, first := d.session()
		if first != int64(i+1) {
			t.Errorf("session %d begins with handle %d; want %d", i, first, i+1)
		}
		p.result(p.expect("tls.NewClient", `["h",1]`), string(rune('1'+i)))
		call.gives(int64(i+1), "")
		p.close()
		h.send("Handshake", i+1).fails("tls.Handshake: handle ")
		// The first round adds two things that stay: the pipe of tls_Cancel, and a signal
		// handler of libc for threads.
		if i == 0 {
			before = h.call("status").Text
		}
	}
	if after := h.call("status").Text; after != before {
		t.Errorf("lost sessions have changed the host's status from\n%s\nto\n%s", before,
			after)
	}
}
