package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// watchdog is the --watchdog of the daemons. It must not be shorter, because the watchdog also
// kills a healthy worker that gets no processor for this time.
const watchdog = 2 * time.Second

// A rig is a daemon whose workers load faultssl. One worker at a time gets orders, by its pid.
// Another worker has a session with an open connection, which must not be harmed.
type rig struct {
	d         *testd.Daemon
	w         *world
	orders    *os.File
	read      int            // bytes of the log that hits has read
	bystander *client.Client // the session of the other worker
	conn      client.Handle  // its connection
}

// orderBytes is the constant size of the file of orders, so that each change is one write.
const orderBytes = 1024

func newRig(t *testing.T, w *world, orders string, flags ...string) *rig {
	t.Helper()
	lib, _ := library(t, pad(orders))
	r := &rig{w: w}
	var err error
	r.orders, err = os.OpenFile(lib+".orders", os.O_WRONLY, 0)
	testkit.Must(t, err)
	t.Cleanup(func() { r.orders.Close() })
	r.d = testd.StartWith(t, testd.Options{
		Flags: append([]string{"--libssl=" + lib, "--watchdog=" + watchdog.String(),
			"--log-level=debug", "--key-log=" + lib + ".keys"}, flags...),
		Env: []string{"SSL_CERT_FILE=" + w.ca.File, "SSL_CERT_DIR=" + w.emptyDir},
	})
	return r
}

// order gives orders to all processes that have the library, from their next call on.
func (r *rig) order(t *testing.T, lines ...string) {
	t.Helper()
	_, err := r.orders.WriteAt([]byte(pad(strings.Join(lines, "\n"))), 0)
	testkit.Must(t, err)
}

func pad(text string) string {
	if len(text) >= orderBytes {
		panic("orders are too long")
	}
	return text + "\n" + strings.Repeat("\n", orderBytes-1-len(text))
}

// accompany opens the bystander's session.
func (r *rig) accompany(t *testing.T) {
	t.Helper()
	ctx := testkit.Bounded(t)
	r.bystander = r.d.Dial(t)
	testkit.Must(t, r.bystander.SetCaBundle(ctx, r.w.ca.File))
	var err error
	r.conn, err = r.bystander.NewClient(ctx, "localhost", r.w.echo)
	testkit.Must(t, err)
	testkit.Must(t, r.bystander.Handshake(ctx, r.conn))
}

// othersGoOn checks that the bystander's session is unharmed. With fresh it also checks that a new
// session works at once.
func (r *rig) othersGoOn(t *testing.T, fresh bool) {
	t.Helper()
	ctx := testkit.Bounded(t)
	const text = "is anybody there?"
	_, err := r.bystander.Write(ctx, r.conn, []byte(text))
	for got := ""; err == nil && got != text; {
		var part []byte
		if part, err = r.bystander.Read(ctx, r.conn, 100); len(part) == 0 && err == nil {
			err = fmt.Errorf("the connection has ended, after %q came back", got)
		}
		got += string(part)
	}
	if err != nil {
		t.Errorf("the fault has harmed the session of another worker: %v", err)
	}
	if !fresh {
		return
	}
	c, err := client.Dial(ctx, r.d.Socket)
	if err != nil {
		t.Errorf("after the fault no new session can begin: %v", err)
		return
	}
	defer c.Close()
	if backend, err := c.Backend(ctx); backend != "openssl" || err != nil {
		t.Errorf("after the fault a new session has the backend %q, %v; want openssl",
			backend, err)
	}
	v := &visit{t: t, ctx: ctx, c: c, w: r.w}
	v.talk("localhost", r.w.answer)
	if v.end != nil {
		t.Errorf("after the fault a new session fails in %s: %v", v.op, v.end)
	}
}

// A hit is a line of the log: an order was followed, or a worker has ended.
type hit struct {
	Msg, Function, Fault string
	PID                  int

	Worker int    // only if a worker has ended: its pid
	Exit   string // only if a worker has ended: how
}

// hits waits until the log says that the worker pid has ended: this is the worker's last line. It
// returns the orders that any worker has followed since the previous call.
func (r *rig) hits(t *testing.T, pid int) (found []hit) {
	t.Helper()
	ended := false
	testkit.Until(t, fmt.Sprintf("the log says that worker %d has ended", pid),
		func() bool {
			log := r.d.LogFrom(t, r.read)
			log = log[:strings.LastIndexByte(log, '\n')+1]
			r.read += len(log)
			for line := range strings.Lines(log) {
				var h hit
				if i := strings.IndexByte(line, '{'); i < 0 ||
					json.Unmarshal([]byte(line[i:]), &h) != nil {
					continue
				}
				if h.Msg == "faultssl" {
					found = append(found, h)
				}
				ended = ended || h.Worker == pid && h.Exit != ""
			}
			return ended
		})
	return found
}

// visit runs a scenario in a new session whose worker has orders. It returns the orders that were
// followed. If the orders make a function return garbage, garbled is its name.
func (r *rig) visit(t *testing.T, s scenario, garbled string, orders ...string) ([]hit, *visit) {
	t.Helper()
	ctx := testkit.Bounded(t)
	c, err := client.Dial(ctx, r.d.Socket)
	testkit.Must(t, err)
	defer c.Close()
	hello, err := c.Hello(ctx)
	testkit.Must(t, err)
	pid := hello.Server.PID
	v := &visit{t: t, ctx: ctx, c: c, w: r.w, garbled: garbled}
	if s.prepare != nil {
		s.prepare(v)
	}
	var lines []string
	for _, o := range orders {
		lines = append(lines, fmt.Sprintf("%d %s", pid, o))
	}
	r.order(t, lines...)
	s.run(v)
	c.Close()
	hits := r.hits(t, pid)
	r.order(t)
	for _, h := range hits {
		if h.PID != pid {
			t.Errorf("worker %d has followed the order of worker %d", h.PID, pid)
		}
	}
	return hits, v
}

// kindOf is the kind of an error of tlsd.
func kindOf(err error) string {
	var e *client.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return string(e.Kind)
	}
	return "not an error of tlsd: " + err.Error()
}
