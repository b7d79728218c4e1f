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

// The trials are all combinations of a function, a scenario that calls the function, and a fault
// that the function can have. First each scenario runs with all calls noted, to find which scenario
// calls which function.
//
// Without -long fewer trials are made. Each fault at the first call of a function is tried in the
// first scenario that calls the function. Garbage at the first call is also tried on an open
// connection. Garbage at all calls is tried on an open connection, and once with a stranger: a peer
// that must not be trusted. The answer 1 (success) at all calls is tried with every stranger. Of
// faults with nearly the same effect, only one is tried.

var long = flag.Bool("long", false, "try every fault in every scenario")

// rigs is the number of daemons that run trials at the same time. Most of the time they wait for
// their watchdogs.
const rigs = 10

// A trial is one of these combinations.
type trial struct {
	scenario scenario
	function function
	call     string // "1": only the first call of the function; "1+": all its calls
	fault    string
}

func (tr trial) name() string {
	return fmt.Sprintf("%s/%s/%s/%s", tr.scenario.name, tr.function.name, tr.call, tr.fault)
}

// faults returns the faults that the function can have. A plain fault ends the worker, whatever the
// function does. Garbage is a wrong result, or errors on the queue.
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

// A trial can make a function lie: the function answers 1 (success), and has not done its work.
// Even then the handshake with a stranger must fail. credible lists the functions that no trial
// makes lie, with the reason for each.
var credible = map[string]string{
	"SSL_set1_host":                  "the name is given to the library in this call alone",
	"X509_VERIFY_PARAM_set1_ip_asc":  "the address is given to the library in this call alone",
	"SSL_CTX_load_verify_locations":  "if it lies, no certificate is trusted",
	"SSL_CTX_set_session_id_context": "tlsd does not use its result",
}

// alike are faults with nearly the same effect as others.
var alike = []string{"errors=1", "return=-0x80000000"}

// waitForEver makes SSL_get_error say at each call that the library must wait for the peer. At the
// end of the stream this looks like a peer that sends nothing more, and the trial would not end. So
// no trial does this at all calls.
const waitForEver = "return=2"

// trials returns the trials to make. reached has the functions that each scenario calls.
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
			t.Errorf("without a fault, scenario %q ends with %v in %s; want kind %q",
				s.name, v.end, v.op, s.ends)
		}
		for _, h := range hits {
			if byChance[h.Function] != "" ||
				s.prepare != nil && slices.Contains(byMove, h.Function) {
				continue
			}
			reached[s.name] = append(reached[s.name], h.Function)
			called[h.Function] = true
		}
		r.othersGoOn(t, true)
	}
	for _, f := range functions {
		why := elsewhere[f.name]
		switch {
		case byChance[f.name] != "":
		case why == "" && !called[f.name]:
			t.Errorf("no scenario calls %s: its faults are not tried", f.name)
		case why != "" && called[f.name]:
			t.Errorf("a scenario calls %s, but the map elsewhere says that none "+
				"does: %s", f.name, why)
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
	"ERR_get_error_line_data":            "called only if ERR_get_error_all is missing (1.1.1)",
	"ERR_get_error": "called only if libcrypto has neither ERR_get_error_all nor " +
		"ERR_get_error_line_data",
}

// byChance are the functions that a scenario calls in some runs only, and why. Their faults are not
// tried.
var byChance = map[string]string{
	"SSL_in_init": "called by a Read that must wait, so the speed of the peer decides; " +
		"package openssl, TestAReadThatIsWokenForNothingGoesOn, has a wrong result",
}

// byMove are the functions that are called when an SSL runs on another thread of the library than
// before. A handshake is the first run of an SSL, so it always calls them. If a scenario begins
// after the handshake, the scheduler decides.
var byMove = []string{"BIO_up_ref", "SSL_set0_wbio"}

// clean are the kinds of error that a fault in the library may cause. A scenario may also end with
// the kind that it has without a fault.
var clean = []string{"file", "handshake", "verify", "io", "state", "internal"}

// lost matches the text about the end of a worker. SIGBUS is possible because the library may use
// or free an address that is garbage.
var lost = regexp.MustCompile(
	`^lost: the worker of this session (died of SIGSEGV|died of SIGABRT|died of SIGBUS|was killed because it did not come back from the library for 2s)( in tls\.\w+)?$`)

// tr.run makes the trial tr. It returns the outcome: "survived", "error" or "lost".
func (tr trial) run(t *testing.T, r *rig) string {
	garbled := ""
	if strings.HasPrefix(tr.fault, "return=") || strings.HasPrefix(tr.fault, "instead=") {
		garbled = tr.function.name
	}
	order := fmt.Sprintf("%s %s %s", tr.function.name, tr.call, tr.fault)
	hits, v := r.visit(t, tr.scenario, garbled, order)
	// The trial is repeated in two cases. In the first case the peer is so quick that tlsd need
	// not wait, and does not call SSL_get_error. In the second case the worker died during a
	// message to the caller, or an instant after the message. Then tlsd does not tell the
	// caller the cause of the loss.
	for again := 0; (len(hits) == 0 || untold(v.end)) && again < 10; again++ {
		hits, v = r.visit(t, tr.scenario, garbled, order)
	}
	if len(hits) != 1 || hits[0].Function != tr.function.name {
		t.Errorf("the order %q was followed %d times; want once: %v", order, len(hits),
			hits)
	}
	r.othersGoOn(t, kindOf(v.end) == string(kind.Lost))
	deadly := map[string]string{"segv": "died of SIGSEGV", "abort": "died of SIGABRT",
		"hang": "was killed because it did not come back"}[tr.fault]
	switch k := kindOf(v.end); {
	case k == string(kind.Lost):
		var e *client.Error
		errors.As(v.end, &e)
		if m := lost.FindString(e.Message); m == "" || !strings.Contains(m, deadly) {
			t.Errorf("the session is lost with the text %q; want the cause %q",
				e.Message, deadly)
		}
		return "lost"
	case k == "" || k == tr.scenario.ends:
		// The script has not noticed the fault. If the fault is deadly, this is right only
		// for functions that are called after the script's last answer.
		if deadly != "" && !slices.Contains(atTheEnd, tr.function.name) {
			t.Errorf("the fault %s must end the worker, but the scenario ends as "+
				"without a fault", tr.fault)
		}
		return "survived"
	case slices.Contains(clean, k):
		if deadly != "" {
			t.Errorf("the fault %s must end the worker, but the caller gets %v",
				tr.fault, v.end)
		}
		return "error"
	default:
		t.Errorf("with the fault %s, %s fails with %v; want one of the kinds %q", tr.fault,
			v.op, v.end, clean)
		return "wrong"
	}
}

// untold says whether a session ended without the line with the reason. proto.md permits that.
func untold(err error) bool {
	var e *client.Error
	return errors.As(err, &e) &&
		strings.HasSuffix(e.Message, "the session is lost: tlsd has closed the connection")
}

// atTheEnd are the functions that tlsd may call for the first time after the script's last answer,
// because tlsd answers Close before it has freed everything.
var atTheEnd = []string{"SSL_CTX_free", "SSL_SESSION_free", "SSL_free", "SSL_shutdown"}
