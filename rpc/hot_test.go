package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/rpc"
	"tlsd/session"
)

// sluggish is an engine that notes what it is to send, and takes only so much of it
// without a wait.
type sluggish struct {
	session.Engine

	mu      sync.Mutex // guards all
	takes   int        // bytes that TryWrite takes before it would block
	fails   int        // bytes after which writing fails; 0: never
	written bytes.Buffer
	writes  []int  // the sizes of TryWrites
	waited  int    // Writes that were told to wait
	stuck   bool   // these never end by themselves
	gives   []byte // what TryRead has
}

var errBroken = errors.New("the wire is broken")

func (*sluggish) Backend() string { return "openssl" }
func (e *sluggish) NewClientContext(session.CABundle) (session.EngineContext, error) {
	return sluggishContext{e}, nil
}

type sluggishContext struct{ e *sluggish }

func (c sluggishContext) RequireTLS13() {}

func (c sluggishContext) Client(nc *net.TCPConn, _ string) (session.EngineConn, error) {
	return sluggishConn{idleConn{nc}, c.e}, nil
}
func (c sluggishContext) Server(*net.TCPConn) (session.EngineConn, error) { panic("no server") }
func (sluggishContext) Free()                                             {}

type sluggishConn struct {
	idleConn
	e *sluggish
}

func (c sluggishConn) TryWrite(p []byte) (int, error) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.e.writes = append(c.e.writes, len(p))
	n := min(len(p), c.e.takes)
	c.e.takes -= n
	c.e.written.Write(p[:n])
	switch {
	case c.e.fails > 0 && c.e.written.Len() >= c.e.fails:
		return n, errBroken
	case n < len(p):
		return n, session.ErrWouldBlock
	}
	return n, nil
}

func (c sluggishConn) Write(ctx context.Context, p []byte) (int, error) {
	if c.e.stuck {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.e.waited++
	c.e.written.Write(p)
	return len(p), nil
}

func (c sluggishConn) TryRead(p []byte) (int, error) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	if len(c.e.gives) == 0 {
		return 0, session.ErrWouldBlock
	}
	n := copy(p, c.e.gives)
	c.e.gives = c.e.gives[n:]
	return n, nil
}

func (c sluggishConn) ReadSome(_ context.Context, limit int) ([]byte, error) {
	return []byte("waited for")[:min(limit, 10)], nil
}

// sluggishPeer has a connection with handle 1, and takes raw answers.
func sluggishPeer(t *testing.T, e *sluggish) *peer { return sluggishPeerOf(t, e, newPeer) }

func sluggishPeerOf(t *testing.T, e *sluggish, make peerMaker) *peer {
	p := make(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.Session.Engine = e })
	p.client(fakeengine.Silent(t))
	p.line(hello)
	p.answer()
	return p
}

func rawWrite(id int, data string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tls.Write","params":[1],"raw":%d}`+"\n%s", id, len(data), data)
}

// pattern is data in which a shifted or repeated piece would show.
func pattern(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}

func TestWritesArriveWholeAndInOrderWhateverTheSystemTakesAtOnce(t *testing.T) {
	t.Parallel()
	const block = 300_000 // more than the reader has room for
	takes := []int{0, 1, 1000, block - 1, block, block + 1, 2*block + 5, 10 * block}
	for i := range 2 * len(takes) {
		takes, where := takes[i/2], []string{"over the socket", "in shared memory"}[i%2]
		t.Run(fmt.Sprint(takes, " ", where), func(t *testing.T) {
			t.Parallel()
			e := &sluggish{takes: takes}
			p := sluggishPeerOf(t, e, both[where])
			data := pattern(3*block + 10)
			go p.to.Write([]byte(rawWrite(11, data[:block]) + rawWrite(12, data[block:block+10]) +
				rawWrite(13, "") + rawWrite(14, data[block+10:2*block+10]) + rawWrite(15, data[2*block+10:])))
			want := map[string]bool{
				`{"jsonrpc":"2.0","id":11,"result":300000}`: true, `{"jsonrpc":"2.0","id":12,"result":10}`: true,
				`{"jsonrpc":"2.0","id":13,"result":0}`: true, `{"jsonrpc":"2.0","id":14,"result":300000}`: true,
				`{"jsonrpc":"2.0","id":15,"result":300000}`: true,
			}
			for len(want) > 0 {
				got := p.answer()
				if !want[got] {
					t.Fatalf("got %s, want one of %v", got, want)
				}
				delete(want, got)
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.written.String() != data {
				t.Errorf("%d bytes were written that differ from the %d sent", e.written.Len(), len(data))
			}
			if all := takes >= len(data); all != (e.waited == 0) {
				t.Errorf("%d Writes had to wait", e.waited)
			}
		})
	}
}

// What is sent behind a large Write does not wait until all of it has left, even if the system takes all.
func TestALargeWriteGivesUpTheShortWayAfterSoManyBytes(t *testing.T) {
	t.Parallel()
	const short = 512 << 10 // bytes, and less than a piece of 64 KiB more
	for size, long := range map[int]bool{short: false, 4 * short: true} {
		e := &sluggish{takes: 1 << 30}
		p := sluggishPeer(t, e)
		data := pattern(size)
		go p.conn.Write([]byte(rawWrite(11, data)))
		p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":11,"result":%d}`, size))
		e.mu.Lock()
		sent := 0
		for _, n := range e.writes {
			sent += n
		}
		if e.written.String() != data {
			t.Errorf("%d bytes were written that differ from the %d sent", e.written.Len(), size)
		}
		if want := min(size, short); sent < want || sent >= want+64<<10 || long != (e.waited > 0) {
			t.Errorf("of %d bytes %d were sent the short way, and %d pieces the long one", size, sent, e.waited)
		}
		e.mu.Unlock()
	}
}

func TestAWriteThatFailsInTheMiddleKeepsTheNextMessageInPlace(t *testing.T) {
	t.Parallel()
	e := &sluggish{takes: 1 << 30, fails: 150_000}
	p := sluggishPeer(t, e)
	go p.conn.Write([]byte(rawWrite(11, pattern(400_000)) + backend + "\n"))
	p.expect(`{"jsonrpc":"2.0","id":11,"error":{"code":-32008,"message":"tls.Write: handle 1: the wire is broken","data":{"kind":"io","op":"tls.Write","handle":1}}}`)
	p.expect(`{"jsonrpc":"2.0","id":...,"result":"openssl"}`)
	p.line(`{"jsonrpc":"2.0","id":12,"method":"tls.LastError"}`)
	p.expect(`{"jsonrpc":"2.0","id":12,"result":"tls.Write: handle 1: the wire is broken"}`)
}

func TestReadsGiveWhatIsThereAndWaitOtherwise(t *testing.T) {
	t.Parallel()
	e := &sluggish{gives: []byte("abcdef")}
	p := sluggishPeer(t, e)
	read := func(id, max int, want string) {
		t.Helper()
		p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tls.Read","params":[1,%d]}`, id, max))
		p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":null,"raw":%d}`, id, len(want)))
		if got := p.raw(len(want)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	read(11, 4, "abcd")
	read(12, 16777216, "ef")
	read(13, 6, "waited")
}

func TestACallerThatIsCutInTheMiddleOfAWriteEndsItsSession(t *testing.T) {
	t.Parallel()
	p := sluggishPeer(t, &sluggish{takes: 1 << 30})
	p.send(`{"jsonrpc":"2.0","id":11,"method":"tls.Write","params":[1],"raw":1000}` + "\nonly a part")
	p.conn.CloseWrite()
	if err := p.over(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Serve returned %v", err)
	}
}

func TestSmallWritesThatArriveTogetherShareARecord(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sizes []int
		want  []int // bytes of each write that the engine gets
	}{
		"four quarters":        {[]int{4096, 4096, 4096, 4096}, []int{16384}},
		"four records":         {slices.Repeat([]int{4096}, 17), []int{65536, 4096}},
		"one does not fit":     {[]int{16384, 16384, 16384, 16000, 500, 10}, []int{65152, 510}},
		"a record in front":    {[]int{16384, 10, 10}, []int{16404}},
		"a large one in front": {[]int{16385, 10, 10}, []int{16385, 20}},
		"a large one behind":   {[]int{10, 10, 20000, 5}, []int{20, 20000, 5}},
		"empty ones":           {[]int{0, 3, 0, 4, 0}, []int{7}},
		"nothing":              {[]int{0, 0}, nil},
		"too many":             {slices.Repeat([]int{1}, 300), []int{256, 44}},
		"too many empty ones":  {append(make([]int, 300), 1), []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &sluggish{takes: 1 << 30}
			p := sluggishPeer(t, e)
			var all, data strings.Builder
			total := 0
			for _, n := range tt.sizes {
				total += n
			}
			data.WriteString(pattern(total))
			at := 0
			for i, n := range tt.sizes {
				all.WriteString(rawWrite(20+i, data.String()[at:at+n]))
				at += n
			}
			p.send(all.String())
			for i, n := range tt.sizes {
				p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":%d}`, 20+i, n))
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.written.String() != data.String() {
				t.Error("other bytes were written than sent")
			}
			if !slices.Equal(e.writes, tt.want) {
				t.Errorf("the engine was given writes of %v, want %v", e.writes, tt.want)
			}
		})
	}
}

func TestOtherMessagesBetweenSmallWritesKeepTheirPlace(t *testing.T) {
	t.Parallel()
	e := &sluggish{takes: 1 << 30}
	p := sluggishPeer(t, e)
	p.send(rawWrite(11, "a") + rawWrite(12, "b") + backend + "\n" + rawWrite(13, "c") +
		strings.Replace(rawWrite(14, "d"), `[1]`, `[2]`, 1) + rawWrite(15, "e"))
	p.expect(`{"jsonrpc":"2.0","id":11,"result":1}`)
	p.expect(`{"jsonrpc":"2.0","id":12,"result":1}`)
	p.expect(`{"jsonrpc":"2.0","id":...,"result":"openssl"}`)
	p.expect(`{"jsonrpc":"2.0","id":13,"result":1}`)
	p.expect(`{"jsonrpc":"2.0","id":14,"error":...}`) // there is no handle 2
	p.expect(`{"jsonrpc":"2.0","id":15,"result":1}`)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.written.String() != "abce" || !slices.Equal(e.writes, []int{2, 1, 1}) {
		t.Errorf("%q was written, in %v", e.written.String(), e.writes)
	}
}

func TestEachOfSeveralJoinedWritesIsAnsweredWhateverBecomesOfThem(t *testing.T) {
	t.Parallel()
	three := rawWrite(11, "abc") + rawWrite(12, "def") + rawWrite(13, "ghi")
	t.Run("they have to wait", func(t *testing.T) {
		t.Parallel()
		for takes := range 9 {
			e := &sluggish{takes: takes}
			p := sluggishPeer(t, e)
			p.send(three)
			for id := 11; id <= 13; id++ {
				p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":3}`, id))
			}
			e.mu.Lock()
			if e.written.String() != "abcdefghi" || e.waited != 1 {
				t.Errorf("%d taken at once: %q was written, %d waited", takes, e.written.String(), e.waited)
			}
			e.mu.Unlock()
		}
	})
	t.Run("they fail", func(t *testing.T) {
		t.Parallel()
		p := sluggishPeer(t, &sluggish{takes: 1 << 30, fails: 1})
		p.send(three)
		for id := 11; id <= 13; id++ {
			p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"error":{"code":-32008,"message":"tls.Write: handle 1: the wire is broken","data":...}}`, id))
		}
	})
	t.Run("one is cancelled", func(t *testing.T) {
		t.Parallel()
		p := sluggishPeer(t, &sluggish{stuck: true})
		p.send(three)
		p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[12]}`)
		for id := 11; id <= 13; id++ {
			p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"error":{"code":-32010,"message":...,"data":...}}`, id))
		}
	})
}
