package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testring"
	"tlsd/rpc"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// TestWhoGetsSharedMemory: who asks for it in a call of its own, and sends memory that is as it has to be, the first time. All the others
// go on over the socket. Of none there is anything left behind the session.
func TestWhoGetsSharedMemory(t *testing.T) {
	t.Parallel()
	const (
		moves = `{"jsonrpc":"2.0","id":1,"result":{"version":1,"capabilities":["ring"],"server":...}}`
		stays = `{"jsonrpc":"2.0","id":1,"result":{"version":1,"capabilities":[],"server":...}}`
		call  = `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1,["ring"]]}`
		note  = `{"jsonrpc":"2.0","method":"tls.Hello","params":[1,["ring"]]}`
	)
	for _, c := range []struct {
		name, send, want string
		fds              func(m *testring.Memory, bad int) []int
	}{
		{name: "a call", send: call, want: moves},
		{name: "behind another call", send: backend + "\n" + call, want: backendAnswer + "\n" + moves},
		{name: "the capability twice", send: `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1,["ring","ring"]]}`, want: moves},
		{name: "a notification", send: note},
		{name: "a notification and then a call", send: note + "\n" + call, want: moves},
		{name: "a batch", send: "[" + call + "]", want: "[" + stays + "]"},
		{name: "a batch and then a call", send: "[" + call + "]\n" + call, want: "[" + stays + "]\n" + moves},
		{name: "without the capability", send: `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1,[]]}`, want: stays},
		{name: "another version", send: `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1,["ring"],0]}`,
			want: `{"jsonrpc":"2.0","id":1,"error":...}`}, // handles begin at 1
		{name: "without a descriptor", send: call, want: stays, fds: func(*testring.Memory, int) []int { return nil }},
		{name: "with other memory", send: call, want: stays, fds: func(_ *testring.Memory, bad int) []int { return []int{bad} }},
		{name: "with other memory, and again", send: call + "\n" + call, want: stays + "\n" + stays,
			fds: func(_ *testring.Memory, bad int) []int { return []int{bad} }},
		{name: "with two descriptors", send: call, want: moves, fds: func(m *testring.Memory, bad int) []int { return []int{bad, m.FD} }},
		{name: "with two, the wrong one last", send: call, want: stays, fds: func(m *testring.Memory, bad int) []int { return []int{m.FD, bad} }},
		{name: "with hundreds of descriptors", send: call, want: moves, fds: func(m *testring.Memory, _ int) []int {
			all := make([]int, 253) // the most that Linux sends at once
			for i := range all {
				all[i] = m.FD
			}
			return all
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			m := testring.New(t, p.conn, ringBytes)
			badName := m.Name + "-bad"
			bad := testring.File(t, badName, 1000, unix.F_SEAL_SHRINK)
			fds := []int{m.FD}
			if c.fds != nil {
				fds = c.fds(m, bad)
			}
			p.sendWith(c.send+"\n", fds...)
			moved := false
			if c.want != "" {
				for _, want := range strings.Split(c.want, "\n") {
					p.expect(want)
					moved = moved || want == moves
				}
			}
			if moved {
				p.to, p.r = m, wire.NewReader(m, 64<<20)
			}
			p.silent()
			p.conn.Close()
			p.over()
			if maps, fds := testring.Kept(t, m.Name); maps != 1 || fds != 1 {
				t.Errorf("%d mappings and %d descriptors of the memory are left, want those of the test", maps, fds)
			}
			if maps, fds := testring.Kept(t, badName); maps != 0 || fds != 1 {
				t.Errorf("%d mappings and %d descriptors of the other memory are left, want that of the test", maps, fds)
			}
		})
	}
}

// TestHelloDoesNotMoveTwice: a second one changes nothing, whatever comes with it.
func TestHelloDoesNotMoveTwice(t *testing.T) {
	t.Parallel()
	p := newRingPeer(t)
	p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1,["ring","raw"]]}`)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":{"version":1,"capabilities":["raw"],"server":...}}`)
	p.silent()
}

// TestDescriptorsThatComeLaterAreDropped, since only what comes first is looked at.
func TestDescriptorsThatComeLaterAreDropped(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.silent()
	m := testring.New(t, p.conn, ringBytes)
	p.sendWith(`{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1,["ring"]]}`+"\n", m.FD)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":{"version":1,"capabilities":[],"server":...}}`)
	p.silent()
	if maps, fds := testring.Kept(t, m.Name); maps != 1 || fds != 1 {
		t.Errorf("%d mappings and %d descriptors of the memory are left, want those of the test", maps, fds)
	}
}

// TestLongMessagesInSharedMemory are longer than it has room for, in both directions at the same time.
func TestLongMessagesInSharedMemory(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.move("raw")
	h := p.client(p.echo())
	const size = 20 * ringBytes
	read := make(chan struct{}, 4) // one for each Read that is to be made
	for range cap(read) {
		read <- struct{}{}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fmt.Fprintf(p.to, `{"jsonrpc":"2.0","id":"w","method":"tls.Write","params":[%s],"raw":%d}`+"\n%s", h, size, strings.Repeat("x", size))
		for range read {
			fmt.Fprintf(p.to, `{"jsonrpc":"2.0","id":"r","method":"tls.Read","params":[%s,%d]}`+"\n", h, size)
		}
	}()
	got, written := 0, false
	for !written || got < size {
		r := p.response()
		switch {
		case r.Error != nil:
			t.Fatal(r.Error)
		case r.ID == "w":
			written = true
		case r.Raw == nil:
			t.Fatalf("no raw answer: %+v", r)
		default:
			if n := len(strings.Trim(p.raw(*r.Raw), "x")); n != 0 {
				t.Fatalf("%d other bytes among %d", n, *r.Raw)
			}
			got += *r.Raw
			read <- struct{}{}
		}
	}
	close(read)
	<-done
}

// parked is an engine whose connections take all at once, and have nothing to read.
type parked struct{ counting }

type parkedContext struct{ session.EngineContext }
type parkedConn struct{ session.EngineConn }

func (e parked) NewClientContext(ca session.CABundle) (session.EngineContext, error) {
	c, err := e.counting.NewClientContext(ca)
	return parkedContext{c}, err
}

func (c parkedContext) Client(nc *net.TCPConn, name string) (session.EngineConn, error) {
	conn, err := c.EngineContext.Client(nc, name)
	return parkedConn{conn}, err
}

func (parkedConn) TryRead([]byte) (int, error) { return 0, session.ErrWouldBlock }
func (parkedConn) ReadSome(ctx context.Context, _ int) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestACallerThatSendsNoMoreIsWokenForItsAnswers, though another call goes on.
func TestACallerThatSendsNoMoreIsWokenForItsAnswers(t *testing.T) {
	t.Parallel()
	engine := parked{newCounting()}
	p := newPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.Session.Engine = engine })
	m := p.move("raw")
	h := p.client(fakeengine.Silent(t))
	p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[%s,10]}`, h))
	until(t, "tlsd to sleep", func() bool { return m.To.Sleeps.Load() == testring.SleepsForAll })
	m.From.Sleeps.Store(testring.SleepsForAll)
	m.Put(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":2,"method":"tls.Write","params":[%s],"raw":1}`+"\nx", h))
	p.conn.CloseWrite() // instead of a bell
	buf := make([]byte, 10)
	if n, err := p.conn.Read(buf); err != nil || string(buf[:n]) != "\n" {
		t.Fatalf("%q, %v; want a bell", buf[:n], err)
	}
	p.expect(`{"jsonrpc":"2.0","id":2,"result":1}`)
}

// fill makes Reads, of 1000 bytes each, until an answer waits for room.
func (p *peer) fill(m *testring.Memory, h any) {
	p.t.Helper()
	for range 2 * ringBytes / 1000 {
		p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[%s,1000]}`, h))
	}
	until(p.t, "an answer that waits for room", func() bool { return m.From.Wants.Load() == 1 })
}

// TestACallerThatIsGoneFreesItsSession at once, though an answer waits for room.
func TestACallerThatIsGoneFreesItsSession(t *testing.T) {
	t.Parallel()
	engine := newCounting()
	p := newPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) {
		c.Session.Engine, c.AnswerTimeout = engine, time.Hour
	})
	m := p.move("raw")
	h := p.client(fakeengine.Silent(t))
	p.fill(m, h)
	p.conn.Close()
	p.over()
	if n := engine.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// scribble writes anything into the memory until stop is set, for the most part what might be, or nearly.
func scribble(m *testring.Memory, r *rand.Rand, stop *atomic.Bool) {
	words := []*atomic.Uint32{m.To.Head, m.To.Tail, m.To.Wants, m.To.Sleeps, m.From.Head, m.From.Tail, m.From.Wants, m.From.Sleeps}
	for !stop.Load() {
		word := words[r.IntN(len(words))]
		switch r.IntN(6) {
		case 0:
			word.Store(r.Uint32())
		case 1:
			word.Store(word.Load() + r.Uint32N(5) - 2)
		case 2:
			word.Store(r.Uint32N(4))
		case 3:
			word.Store(words[r.IntN(len(words))].Load())
		case 4:
			m.To.Head.Store(m.To.Tail.Load() + r.Uint32N(ringBytes+2))
		case 5:
			// A byte that may be part of a line, of raw bytes, or of nothing.
			place := testring.Header + r.IntN(len(m.All)-testring.Header)
			(*atomic.Uint32)(unsafe.Pointer(&m.All[place&^3])).Store(r.Uint32())
		}
		if r.IntN(50) == 0 {
			runtime.Gosched()
		}
	}
}

// TestAHostileCallerHarmsOnlyItself: it writes into the shared memory whatever it wants while its calls run. Its session ends
// when the caller has, nothing of it is left, and the others go on.
func TestAHostileCallerHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	other := newRingPeer(t)
	port := fakeengine.Silent(t)
	for seed := range uint64(40) {
		for _, mild := range []bool{true, false} { // mild: what it says is mostly right
			engine := newCounting()
			p := newPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) {
				c.Session.Engine, c.Session.Policy, c.AnswerTimeout = engine, harmless(t, port), patience
			})
			m := p.move("raw")
			handles := []any{p.client(port), p.client(port)}
			r := rand.New(rand.NewPCG(seed, 1))
			var stop atomic.Bool
			var busy sync.WaitGroup
			end := sync.OnceFunc(func() { p.conn.Close(); stop.Store(true); busy.Wait() })
			defer end() // before the memory goes
			if !mild {
				busy.Go(func() { scribble(m, rand.New(rand.NewPCG(seed, 2)), &stop) })
			}
			busy.Go(func() { io.Copy(io.Discard, p.conn) }) // until the session's end
			for range 300 {
				h, n := handles[r.IntN(2)], r.IntN(3)
				n = r.IntN([]int{2, 1000, 2 * ringBytes}[n])
				var msg []byte
				switch r.IntN(6) {
				case 0, 1, 2:
					msg = fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[%v],"raw":%d}`+"\n%s", h, n, make([]byte, n))
				case 3:
					msg = fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[%v,%d]}`+"\n", h, n+1)
				case 4:
					msg = []byte(backend + "\n")
				case 5:
					msg = []byte("nonsense\n")
				}
				if mild {
					// It takes back what it has said, and says it again.
					before := m.To.Head.Load()
					m.Put(msg)
					m.To.Head.Store(before)
					m.To.Head.Store(m.To.At)
				} else {
					m.Put(msg)
				}
				m.Ring()
				m.From.Tail.Store(m.From.Head.Load()) // all is taken
				if r.IntN(10) == 0 {
					runtime.Gosched()
				}
			}
			end()
			p.over()
			if n := engine.open.Load(); n != 0 {
				t.Fatalf("seed %d: %d connections are open", seed, n)
			}
		}
	}
	other.silent()
}

// TestTheServersEndEndsASessionInSharedMemory, with a word for the caller, or without one if it takes nothing.
func TestTheServersEndEndsASessionInSharedMemory(t *testing.T) {
	t.Parallel()
	p := newRingPeer(t)
	p.silent()
	p.stop()
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":...,"data":{"kind":"lost"}}}`)
	p.ended()
	if err := p.over(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}

	engine := newCounting()
	p = newPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.Session.Engine = engine })
	m := p.move("raw")
	h := p.client(fakeengine.Silent(t))
	p.fill(m, h)
	p.stop()
	p.over()
}
