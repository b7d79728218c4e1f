package plugin

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A forked child has a session of its own. It does not keep its parent's session open.

func TestAForkedChildHasASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	d, h, p := opened(t)
	p.client(h, 4)
	ca := h.start("SetCaBundle", "/ca.pem")
	p.result(p.expect("tls.SetCaBundle", `["/ca.pem"]`), "0")
	ca.gives(0, "")
	error := h.start("Handshake", 4)
	p.fail(p.expect("tls.Handshake", "[4,1]"), "the parent's error")
	error.fails("the parent's error")

	// During the fork, other threads of the parent wait. One of them reads tlsd's answers for
	// all, and one is in the middle of sending.
	read := h.start("Subject", 1)
	readID := p.expect("tls.PeerCertSubject", "[1]")
	accept := h.start("Accept", 2, "::", 1)
	acceptID := p.expect("tls.Accept", `[2,"::",1,1]`)
	large := h.clog(p, read, accept)[2:]

	h.send("fork").gives(0, "") // from here on the child does the commands
	h.send("LastError").gives(0, "")
	for _, handle := range []int{1, 4} {
		h.send("Subject", handle).fails("tls.PeerCertSubject: handle ",
			"no such handle: it belongs to the process that this one was forked from")
	}
	h.send("Close", 5).fails("tls.Close: handle 5: no such handle")
	client := h.start("NewClient", "child", 1)
	c, first := d.session()
	if first != 5 {
		t.Errorf("the child's session begins with handle %d; want 5, because 1 to 4 are "+
			"the parent's", first)
	}
	c.result(c.expect("tls.SetCaBundle", `["/ca.pem"]`), "0") // as in the parent's session
	c.result(c.expect("tls.NewClient", `["child",1]`), "5")
	client.gives(5, "")
	childRead := h.start("Subject", 5)
	c.result(c.expect("tls.PeerCertSubject", "[5]"), `"child"`)
	childRead.reads("child")

	// The calls of the parent go on meanwhile, as if there were no child.
	p.result(readID, `"parent"`)
	read.reads("parent")

	h.send("exit")
	h.child().gives(0, "")
	c.ended()

	p.fail(acceptID, "accept")
	accept.fails("accept")
	for range large {
		p.fail(*p.request().ID, "too large")
	}
	for _, c := range large {
		c.fails("too large")
	}
	p.client(h, 6)
}

func TestAChildThatNeverCallsDoesNotKeepTheParentsSessionOpen(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	parent := h.descriptors()
	h.send("fork").gives(0, "")
	if child := h.descriptors(); child != parent-3 {
		t.Errorf("the parent has %d descriptors, the child %d; want 3 fewer in the child, "+
			"which closes the session's socket and both ends of tls_Cancel's pipe",
			parent, child)
	}
	h.send("exit")
	h.child().gives(0, "")
	p.client(h, 2)
}

func TestAForkLeaksNothing(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHostWith(t, hostOptions{flavour: plain, env: []string{d.env()},
		wrapper: valgrind(t, "--leak-check=full",
			"--errors-for-leak-kinds=definite,possible")})
	for handle := int64(1); handle <= 2; handle++ {
		// send makes the call in the main thread, and start would make it in another one. A
		// forked child has only the thread that forks. So in the child valgrind would take
		// the memory of another thread's call for a leak.
		client := h.send("NewClient", "h", 1)
		p, _ := d.session()
		p.result(p.expect("tls.NewClient", `["h",1]`), fmt.Sprint(handle))
		client.gives(handle, "")
		if handle == 1 {
			h.send("fork").gives(0, "")
		}
	}
	h.send("exit")
	h.child().gives(0, "") // if memory leaks, valgrind changes the child's exit status
}

func TestAProgramThatTheHostStartsDoesNotInheritTheSession(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	before := h.call("spawn") // how many sockets the started program inherits
	client := h.start("NewClient", "h", 1)
	p, _ := d.session()
	p.result(p.expect("tls.NewClient", `["h",1]`), "1")
	client.gives(1, "")
	h.send("spawn").gives(before.N, "")
}

func TestALibraryThatIsLoadedAgainBeginsAnew(t *testing.T) {
	t.Parallel()
	d, h, p := opened(t)
	before := h.call("status").Text
	h.send("reload").gives(0, "")
	p.ended()
	h.send("Handshake", 1).fails("tls.Handshake: handle 1: no such handle")
	client := h.start("NewClient", "h", 1)
	p, first := d.session()
	if first != 1 {
		t.Errorf("a library that was loaded again begins with handle %d; want 1", first)
	}
	p.result(p.expect("tls.NewClient", `["h",1]`), "1")
	client.gives(1, "")
	if after := h.call("status").Text; after != before {
		t.Errorf("the reload has left something behind; before\n%s\nafter\n%s", before,
			after)
	}
}

// A grandchild has neither its parent's handles nor its grandparent's.
func TestAGrandchildHasNoHandlesOfItsAncestors(t *testing.T) {
	t.Parallel()
	d, h, p := opened(t)
	_ = p
	h.send("fork").gives(0, "")
	client := h.start("NewClient", "child", 1)
	c, _ := d.session()
	c.result(c.expect("tls.NewClient", `["child",1]`), "2")
	client.gives(2, "")
	h.send("status").wait() // joins the child's other threads before the child forks
	h.send("fork").gives(0, "")
	for _, handle := range []int{1, 2} {
		h.send("Close", handle).fails("tls.Close: handle ", "no such handle")
	}
	client = h.start("NewClient", "grandchild", 1)
	g, first := d.session()
	if first != 3 {
		t.Errorf("the grandchild's session begins with handle %d; want 3", first)
	}
	g.result(g.expect("tls.NewClient", `["grandchild",1]`), "3")
	client.gives(3, "")
	h.send("exit")
	h.child().gives(0, "")
	// The child's session still works after the end of the grandchild.
	handshake := h.start("Handshake", 2)
	c.result(c.expect("tls.Handshake", "[2,1]"), "0")
	handshake.gives(0, "")
	h.send("exit")
	h.child().wait()
}

// A child that is forked while its parent connects to the daemon gets a copy of the socket. It must
// close the copy.
func TestAChildThatIsForkedDuringTheConnectDoesNotKeepTheSessionOpen(t *testing.T) {
	t.Parallel()
	path, first := heldQueue(t)
	h := startHost(t, "TLSD_SOCKET="+path)
	before := h.descriptors()
	client := h.start("NewClient", "h", 1)
	h.untilAThreadIsIn(unix.SYS_CONNECT)
	h.send("fork").gives(0, "")
	if child := h.descriptors(); child != before {
		t.Errorf("the host had %d descriptors before its call, the child has %d; want as "+
			"many", before, child)
	}
	d := first() // the queue has room from now on
	p, _ := d.session()
	p.result(p.expect("tls.NewClient", `["h",1]`), "1")
	client.gives(1, "")
	h.send("exit")
	h.child().gives(0, "")
	p.client(h, 2)
}

// descriptors counts the open descriptors of the process that carries out the commands.
func (h *host) descriptors() (n int) {
	h.t.Helper()
	_, after, _ := strings.Cut(h.call("status").Text, "fds ")
	if _, err := fmt.Sscan(after, &n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// heldQueue returns the path of a socket with a full queue: a connect waits there. The function
// free makes room in the queue, and returns a stand-in that serves the socket.
func heldQueue(t *testing.T) (path string, free func() *standIn) {
	t.Helper()
	path = filepath.Join(nowhere(t), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := firstError(unix.Bind(fd, &unix.SockaddrUnix{Name: path}),
		unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	filler, err := net.Dial("unix", path) // takes the queue's only place
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { filler.Close() })
	return path, func() *standIn {
		file := os.NewFile(uintptr(fd), path)
		defer file.Close()
		ln, err := net.FileListener(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		d := &standIn{t, path, ln.(*net.UnixListener)}
		d.accept() // the filler
		return d
	}
}
