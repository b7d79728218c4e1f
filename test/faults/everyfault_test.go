package main

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/kind"
	"tlsd/rpc/client"
)

// The product: every function that is called, in every scenario that calls it, with every fault
// that it can have. First each scenario runs with all calls noted, to find which scenario calls
// which function.
//
// By default the product is reduced. Each fault of a function is tried once, in the first scenario
// that calls the function. A fault that goes on is tried with a peer that must not be trusted, and
// on an open connection. The lies about verification are tried in each scenario of a stranger. Of
// similar garbage only some is tried. With -long nothing is left out.

var long = flag.Bool("long", false, "try every fault in every scenario")

// rigs is the number of daemons that are tried at the same time. They spend most of the time
// waiting for their watchdogs.
const rigs = 10

// A trial is one element of the product.
type trial struct {
	scenario scenario
	function function
	call     string // "1" or "1+"
	fault    string
}

func (tr trial) name() string {
	return fmt.Sprintf("%s/%s/%s/%s", tr.scenario.name, tr.function.name, tr.call, tr.fault)
}

// faults are the faults that the function can have. plain ones depend on where it is called, and
// not on what it is.
func faults(f function) (plain, garbage []string) {
	plain = []string{"segv", "abort", "hang"}
	garbage = []string{"errors=1", "errors=40"}
	switch f.result {
	case "void":
		garbage = append(garbage, "return=0")
	case "void *":
		garbage = append(garbage, "return=0")
	case "const char *":
		garbage = append(garbage, "return=0", "return=control", "return=huge",
			"return=unterminated")
	case "int":
		garbage = append(garbage, "return=-1", "return=0", "return=0x7fffffff",
			"return=-0x80000000", "instead=-1", "instead=0", "instead=0x7fffffff")
	default: // of 64 bits
		garbage = append(garbage, "return=-1", "return=0", "return=0x7fffffffffffffff",
			"instead=-1", "instead=0", "instead=0x7fffffffffffffff")
	}
	if f.name == "SSL_get_error" {
		for code := 1; code <= 6; code++ {
			garbage = append(garbage, fmt.Sprintf("return=%d", code))
		}
	}
	if f.counts() {
		garbage = append(garbage, "return=more", "instead=more", "short=64")
	}
	return plain, garbage
}

// A lie is a success that has not taken place. No check of a handshake's result may rely on a
// single answer of the library. The exceptions are functions whose result nothing else shows.
var credible = map[string]string{
	"SSL_set1_host":                  "the name is given to the library in this call alone",
	"X509_VERIFY_PARAM_set1_ip_asc":  "the address is given to the library in this call alone",
	"SSL_CTX_load_verify_locations":  "no certificates are trusted then",
	"SSL_CTX_set_session_id_context": "not looked at",
}

// alike are faults with nearly the same effect as others.
var alike = []string{"errors=1", "return=-0x80000000"}

// waitForEver is an SSL_get_error that always wants to wait for the peer. At the end of the stream
// that looks like a peer that sends nothing more: only the caller can end the wait.
const waitForEver = "return=2"

// trials makes the product from the functions that each scenario calls.
func trials(functions []function, reached map[string][]string) (all []trial) {
	met, metByStranger := map[string]bool{}, map[string]bool{}
	for _, s := range scenarios {
		for _, f := range functions {
			if !slices.Contains(reached[s.name], f.name) {
				continue
			}
			plain, garbage := faults(f)
			first := !met[f.name]
			met[f.name] = true
			goesOn := s.prepare != nil || s.stranger && !metByStranger[f.name]
			metByStranger[f.name] = metByStranger[f.name] || s.stranger
			for _, fault := range plain {
				if first || *long {
					all = append(all, trial{s, f, "1", fault})
				}
			}
			for _, fault := range garbage {
				if !*long && slices.Contains(alike, fault) {
					continue
				}
				if first || s.prepare != nil || *long {
					all = append(all, trial{s, f, "1", fault})
				}
				if (goesOn || *long) &&
					!(f.name == "SSL_get_error" && fault == waitForEver) {
					all = append(all, trial{s, f, "1+", fault})
				}
			}
			if _, ok := credible[f.name]; !ok && s.stranger && f.result == "int" {
				all = append(all, trial{s, f, "1+", "return=1"})
			}
		}
	}
	return all
}

func TestNoFaultInTheLibraryHurtsAnybodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, functions := library(t, "")
	pool := make(chan *rig, rigs)
	for range rigs {
		r := newRig(t, w, "")
		r.accompany(t)
		pool <- r
	}
	reached := survey(t, pool, functions)
	if t.Failed() {
		t.FailNow()
	}

	var all sync.WaitGroup
	var mu sync.Mutex // guards outcomes
	outcomes := map[string]int{}
	kinds := map[string]bool{}
	product := trials(functions, reached)
	for _, tr := range product {
		r := <-pool
		kinds[tr.fault] = true
		all.Go(func() {
			defer func() { pool <- r }()
			t.Run(tr.name(), func(t *testing.T) {
				outcome := tr.run(t, r)
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			})
		})
	}
	all.Wait()
	t.Logf("%d functions, %d faults, %d trials: %v", len(functions), len(kinds),
		len(product), outcomes)
}

// survey runs each scenario without faults, and returns the functions that it calls.
func survey(t *testing.T, pool chan *rig, functions []function) map[string][]string {
	r := <-pool
	defer func() { pool <- r }()
	reached := map[string][]string{}
	called := map[string]bool{}
	for _, s := range scenarios {
		hits, v := r.visit(t, s, "", "* 1 note")
		if kind := kindOf(v.end); kind != s.ends {
			t.Errorf("%s: without a fault it ends with %v in %s", s.name, v.end, v.op)
		}
		for _, h := range hits {
			reached[s.name] = append(reached[s.name], h.Function)
			called[h.Function] = true
		}
		r.othersGoOn(t, true)
	}
	for _, f := range functions {
		why := elsewhere[f.name]
		switch {
		case why == "" && !called[f.name]:
			t.Errorf("no scenario calls %s: its faults are not tried", f.name)
		case why != "" && called[f.name]:
			t.Errorf("%s is called, although it is not expected to be: %s", f.name, why)
		}
	}
	return reached
}

// elsewhere are the functions that no scenario calls, and why.
var elsewhere = map[string]string{
	"OpenSSL_version_num": "called when the library is loaded: " +
		"TestAFaultAtLoadTimeIsReportedAndTheDaemonRecovers",
	"OpenSSL_version":                    "likewise",
	"OPENSSL_init_ssl":                   "likewise",
	"SSL_get_ex_data_X509_STORE_CTX_idx": "likewise",
	"BIO_new_bio_pair":                   "likewise",
	"ERR_get_error_line_data":            "only where there is no ERR_get_error_all: 1.1.1",
	"ERR_get_error":                      "only where neither of the others is",
}

// The kinds of error that may follow from a fault in the library, besides the kind of the scenario
// itself.
var clean = []string{"file", "handshake", "verify", "io", "state", "internal"}

// lost is the text about the end of a worker.
// What a garbled address leads to, such as its being freed, may also be a bus error.
var lost = regexp.MustCompile(
	`^lost: the worker of this session (died of SIGSEGV|died of SIGABRT|died of SIGBUS|was killed because it did not come back from the library for 2s)( in tls\.\w+)?$`)

// run is one trial. It returns the outcome: "survived", "error" or "lost".
func (tr trial) run(t *testing.T, r *rig) string {
	garbled := ""
	if strings.HasPrefix(tr.fault, "return=") || strings.HasPrefix(tr.fault, "instead=") {
		garbled = tr.function.name
	}
	order := fmt.Sprintf("%s %s %s", tr.function.name, tr.call, tr.fault)
	hits, v := r.visit(t, tr.scenario, garbled, order)
	// The trial is repeated in two cases. A quick peer may leave nothing to wait for, and so no
	// call of SSL_get_error. And the cause of a loss is left out if the worker may have begun a
	// message, as it seems for an instant after each message.
	for again := 0; (len(hits) == 0 || untold(v.end)) && again < 10; again++ {
		hits, v = r.visit(t, tr.scenario, garbled, order)
	}
	if len(hits) != 1 || hits[0].Function != tr.function.name {
		t.Errorf("the order has been followed %d times: %v", len(hits), hits)
	}
	r.othersGoOn(t, kindOf(v.end) == string(kind.Lost))
	deadly := map[string]string{"segv": "died of SIGSEGV", "abort": "died of SIGABRT",
		"hang": "was killed because it did not come back"}[tr.fault]
	switch k := kindOf(v.end); {
	case k == string(kind.Lost):
		var e *client.Error
		errors.As(v.end, &e)
		if m := lost.FindString(e.Message); m == "" || !strings.Contains(m, deadly) {
			t.Errorf("the loss is told as %q", e.Message)
		}
		return "lost"
	case k == "" || k == tr.scenario.ends:
		// Then a deadly fault comes after the last call: at the end of the session.
		if deadly != "" && !slices.Contains(atTheEnd, tr.function.name) {
			t.Errorf("%s has gone by as if nothing had happened", tr.fault)
		}
		return "survived"
	case slices.Contains(clean, k):
		if deadly != "" {
			t.Errorf("%s is told as %v", tr.fault, v.end)
		}
		return "error"
	default:
		t.Errorf("%s in %s: %v", tr.fault, v.op, v.end)
		return "wrong"
	}
}

// untold says whether a session ended without the line with the reason. proto.md permits that.
func untold(err error) bool {
	var e *client.Error
	return errors.As(err, &e) &&
		strings.HasSuffix(e.Message, "the session is lost: tlsd has closed the connection")
}

// atTheEnd are the functions that may first be called after the script's last answer: the answer to
// its Close, before the end of the Close.
var atTheEnd = []string{"SSL_CTX_free", "SSL_SESSION_free", "SSL_free", "SSL_shutdown"}
