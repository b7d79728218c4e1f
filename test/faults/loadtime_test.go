package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Each worker loads the library before it has a session. In these tests, one of the functions that
// a worker calls while it loads the library goes wrong in each worker.

// atLoadTime are the functions that a worker calls while it loads the library. The other functions
// of the error queue are left to TestNoFaultInTheLibraryHurtsAnybodyElse.
var atLoadTime = []string{
	"OpenSSL_version_num", "OpenSSL_version", "OPENSSL_init_ssl",
	"SSL_get_ex_data_X509_STORE_CTX_idx", "SSL_CTX_new", "BIO_new_bio_pair", "ERR_clear_error",
	"ERR_peek_error",
}

// callsFor is the time during which callers come again and again while the fault lasts.
const callsFor = 2 * time.Second

// While no worker can load the library, each caller gets an error with the cause, and tlsd does not
// start workers in a loop. When the fault is over, tlsd serves again.
func TestAFaultAtLoadTimeIsReportedAndTheDaemonRecovers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, functions := library(t, "")
	slots := make(chan struct{}, 6)
	var all sync.WaitGroup
	var mu sync.Mutex // guards outcomes
	outcomes := map[string]int{}
	for _, f := range functions {
		if !slices.Contains(atLoadTime, f.name) {
			continue
		}
		plain, garbage := faults(f)
		for _, fault := range append(plain, garbage...) {
			if fault == "hang" && f.name != "OPENSSL_init_ssl" && !*long {
				continue // it takes 30 s, and a hang is the same in any function
			}
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				t.Run(f.name+"/"+fault, func(t *testing.T) {
					outcome := tryAtLoadTime(t, w, f.name, fault)
					mu.Lock()
					outcomes[outcome]++
					mu.Unlock()
				})
			})
		}
	}
	all.Wait()
	t.Logf("the number of trials by outcome: %v", outcomes)
}

// tryAtLoadTime starts a daemon whose workers all meet the fault, and looks at the errors of
// callers for callsFor. Then it ends the fault, and waits until tlsd serves again.
func tryAtLoadTime(t *testing.T, w *world, function, fault string) (outcome string) {
	r := newRig(t, w, "* "+function+" 1+ "+fault)
	began := time.Now()
	outcomes := map[string]bool{}
	callers := 0
	for callers == 0 || time.Since(began) < callsFor {
		callers++
		outcomes[r.callAtLoadTime(t, fault)] = true
		if t.Failed() {
			break
		}
		if fault == "hang" {
			break
		}
		time.Sleep(callsFor / 10) // the callers' pace
	}
	// For each caller, tlsd tries three workers at most. Besides, it starts spare workers, and
	// waits longer before each: 0, 0.2, 0.4, 0.8 … s.
	if died, most := strings.Count(r.d.Log(t), "worker ended unexpectedly"),
		3*callers+8; died > most {
		t.Errorf("%d workers have died for %d callers within %v; want at most three for "+
			"each caller, and 8 spare workers", died, callers,
			time.Since(began))
	}
	r.order(t) // no order: the fault is over
	testkit.Until(t, "tlsd serves again when the fault is over", func() bool {
		ctx := testkit.Bounded(t)
		c, err := client.Dial(ctx, r.d.Socket)
		if err != nil {
			return false
		}
		defer c.Close()
		v := &visit{t: t, ctx: ctx, c: c, w: w}
		v.talk("localhost", w.answer)
		// A spare worker from before the end of the fault may still fail. In this case the
		// test tries again.
		return v.end == nil
	})
	for _, o := range []string{"refused", "stub", "served"} {
		if outcomes[o] {
			return o
		}
	}
	return "wrong"
}

// dial is client.Dial, but only ctx limits its time.
func dial(ctx context.Context, socket string) (*client.Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	c := client.New(conn)
	if _, err := c.Hello(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// callAtLoadTime plays one caller. It returns "refused" if no worker is ready, "stub" if the worker
// has no library, and "served" in all other cases. An error must give the reason.
func (r *rig) callAtLoadTime(t *testing.T, fault string) string {
	t.Helper()
	reason := map[string]string{"segv": "died of SIGSEGV", "abort": "died of SIGABRT",
		"hang": "was killed because it was not ready within 10s"}[fault]
	// tlsd tries for 30 s to find a worker
	ctx, cancel := context.WithTimeout(t.Context(), 3*testkit.Patience)
	defer cancel()
	c, err := dial(ctx, r.d.Socket)
	if err != nil {
		if kindOf(err) != "internal" ||
			!strings.Contains(err.Error(), "no worker process for this session") ||
			!strings.Contains(err.Error(), reason) ||
			reason == "" && !strings.Contains(err.Error(), "died of SIGSEGV") {
			t.Errorf("a caller is told %v; want kind internal, that there is no "+
				"worker process, and the cause: %s", err, reason)
		}
		return "refused"
	}
	defer c.Close()
	if reason != "" {
		t.Errorf("a worker serves this caller, although %s must have ended it", fault)
	}
	backend, err := c.Backend(ctx)
	if err != nil {
		t.Error(err)
	}
	if backend == "openssl" {
		v := &visit{t: t, ctx: ctx, c: c, w: r.w}
		v.talk("localhost", r.w.answer)
		if v.end != nil && !slices.Contains(clean, kindOf(v.end)) {
			t.Errorf("the caller is served, and its session ends with %v; want one of "+
				"the kinds %q", v.end, clean)
		}
		return "served"
	}
	if _, err := c.NewClient(ctx, "localhost", r.w.answer); backend != "stub" ||
		kindOf(err) != "backend" ||
		!strings.Contains(err.Error(), "faultssl.so") {
		t.Errorf("the backend is %q, and NewClient says %v; want a stub that says what "+
			"was tried", backend, err)
	}
	return "stub"
}
