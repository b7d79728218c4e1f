package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"tlsd/rpc/client"
	"tlsd/rpc/wire"
)

// This file judges facts. A finding is "fail" if calls cannot work, and "warn" if something may
// surprise the user. Findings of both sorts say how to mend the problem.

type severity string

const (
	ok   severity = "ok"
	warn severity = "warn"
	fail severity = "fail"
)

// finding is one line of doctor's report.
type finding struct {
	Check  string   `json:"check"`
	Status severity `json:"status"`
	Text   string   `json:"text"`
	Mend   string   `json:"mend,omitempty"` // empty if the status is ok
}

// report is the result of doctor.
type report struct {
	Usable   bool      `json:"usable"` // no finding is "fail"
	Socket   string    `json:"socket,omitempty"`
	Findings []finding `json:"findings"`
}

// If a round trip takes longer than slowTrip, users notice that calls are slow. On an idle machine
// it takes much less than 1 ms.
const slowTrip = 50 * time.Millisecond

func judge(f facts) report {
	var r report
	add := func(check string, s severity, mend, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		r.Findings = append(r.Findings, finding{check, s, text, mend})
	}
	conf(f, add)
	sockets(f, add)
	if f.answers {
		r.Socket = f.probes[len(f.probes)-1].path
		daemon(f, add)
	}
	environment(f, add)
	programs(f, add)
	failed := func(x finding) bool { return x.Status == fail }
	r.Usable = !slices.ContainsFunc(r.Findings, failed)
	return r
}

type adder func(check string, s severity, mend, format string, args ...any)

// conf judges the administrator's settings for all callers.
func conf(f facts, add adder) {
	switch {
	case f.confErr != nil:
		add("client.conf", fail, "ask the administrator to correct it: the file belongs "+
			"to root, and tlsplugin(3) describes it", "%v", f.confErr)
		return
	case !f.conf.There:
		add("client.conf", ok, "", "there is no %s", client.ConfPath)
		return
	}
	setting := func(key, value string) string { return key + "=" + cmp.Or(value, "(not set)") }
	users := strings.Trim(fmt.Sprint(f.conf.TrustedUsers), "[]")
	text := strings.Join([]string{client.ConfPath + ": " + setting("socket", f.conf.Socket),
		setting("autostart", f.conf.Autostart), setting("trusted-users", users)}, ", ")
	if len(f.conf.UnknownUsers) > 0 {
		add("client.conf", warn, "give the numbers of these users; names work only for "+
			"users in /etc/passwd and for systemd's dynamic users",
			"%s; unknown users: %s", text, strings.Join(f.conf.UnknownUsers, ", "))
		return
	}
	add("client.conf", ok, "", "%s", text)
}

// noAutostart says why the plugin starts no private daemon. It returns "" if the plugin may start
// one. noAutostart ignores TLSD_AUTOSTART, because environment() judges this variable.
func noAutostart(f facts) string {
	switch {
	case f.conf.Autostart == "no":
		return client.ConfPath + " has autostart = no"
	case f.conf.Autostart == "yes":
	case f.conf.Socket != "":
		return client.ConfPath + " names the system's socket"
	case slices.Contains(client.SystemSockets, f.env["TLSD_SOCKET"]):
		return "TLSD_SOCKET names the system's socket"
	case f.env["TLSD_SOCKET"] == "" && len(f.systems) > 0:
		return "the system's socket " + f.systems[0] + " exists"
	}
	return ""
}

// sockets() judges the probed sockets.
func sockets(f facts, add adder) {
	for _, p := range f.probes {
		if p.err == nil {
			add("socket", ok, "", "%s answers%s", p.path, owner(p.file))
			continue
		}
		d := explain(p.path, p.file, f.uid, p.err)
		switch {
		case !f.answers:
			add("socket", fail, d.mend, "%s: %s", p.path, d.text)
		case errors.Is(p.err, os.ErrNotExist): // normal, because a later socket answers
			add("socket", ok, "", "%s: %s", p.path, d.text)
		default:
			add("socket", warn, d.mend, "%s: %s", p.path, d.text)
		}
	}
	for _, path := range f.unused {
		add("socket", ok, "", "%s: not used, because the one above answers", path)
	}
	if why := noAutostart(f); why != "" && !f.answers && f.confErr == nil {
		add("autostart", warn, "start the system's tlsd, or ask its administrator to do so",
			"the system's tlsd is down, and the plugin starts no private one, "+
				"because %s", why)
	}
}

// daemon judges the daemon's answers.
func daemon(f facts, add adder) {
	s := f.hello.Server
	if f.infoErr != nil {
		add("daemon", fail, "see the log of tlsd",
			"tlsd does not answer questions about itself: %v", f.infoErr)
		return
	}
	who := "you"
	switch {
	case f.peer.UID == 0 && f.uid != 0:
		who = "root"
	case int(f.peer.UID) != f.uid:
		who = fmt.Sprintf("user %d", f.peer.UID)
	}
	add("daemon", ok, "",
		"%s %s; socket of process %d, run by %s (user %d); session served by process %d",
		s.Name, s.Version, f.peer.PID, who, f.peer.UID, s.PID)
	add("protocol", ok, "", "version %d, capabilities %s", f.hello.Version,
		strings.Join(f.hello.Capabilities, " "))
	library(f.info, add)
	confinement(f.info, add)
	policy(f.info, add)
	trip(f, add)
	conversation(f.tried, add)
	names(f.modules, add)
}

func library(i wire.Info, add adder) {
	if i.Backend != "openssl" {
		why := i.Libssl.Error
		if why == "" {
			why = "tlsd gives no reason"
		}
		add("backend", fail, "install the library (Debian, Ubuntu: apt install libssl3, "+
			"or libssl3t64) and start tlsd again, or start tlsd with --libssl PATH",
			"%s: no usable OpenSSL: %s", i.Backend, why)
		return
	}
	add("backend", ok, "", "%s", i.Backend)
	add("libssl", ok, "", "%s, %s", i.Libssl.Version, i.Libssl.Path)
	if i.Libssl.Libcrypto != "" {
		// Always ok here: if tlsd finds libraries of different builds, it uses neither of
		// them, and the finding "backend" says so.
		add("libcrypto", ok, "", "%s (%s)", i.Libssl.Libcrypto,
			cmp.Or(i.Libssl.Pair, "not compared with libssl"))
	}
	empty := func(s string) bool { return s == "" }
	places := slices.DeleteFunc([]string{i.Trust.File, i.Trust.Dir}, empty)
	from := strings.Join(places, ", ")
	tried := ""
	if len(i.Trust.Empty) > 0 {
		tried = "; tried: " + strings.Join(i.Trust.Empty, ", ")
	}
	if i.Trust.Certificates == 0 {
		add("trust", warn, "install ca-certificates, or name a file of CA certificates "+
			"with tls.SetCaBundle; until then no server is trusted",
			"no trusted certificates in %s (%s)%s", cmp.Or(from, "any place"),
			i.Trust.Source, tried)
		return
	}
	add("trust", ok, "", "%d certificates in %s (%s)%s", i.Trust.Certificates, from,
		i.Trust.Source, tried)
}

// confinement judges the confinement of the session's worker.
func confinement(i wire.Info, add adder) {
	if len(i.Confinement) == 0 {
		add("confinement", warn, "start tlsd without --confine=off",
			"tlsd does not confine its workers")
		return
	}
	var on, off []string
	for _, measure := range slices.Sorted(maps.Keys(i.Confinement)) {
		if why := i.Confinement[measure]; why == "on" {
			on = append(on, measure)
		} else {
			off = append(off, measure+" ("+why+")")
		}
	}
	if len(off) > 0 {
		add("confinement", warn,
			"use a newer kernel, or a container that allows these measures",
			"%s; not in force: %s", strings.Join(on, ", "), strings.Join(off, ", "))
		return
	}
	add("confinement", ok, "", "%s", strings.Join(on, ", "))
}

// policy shows the administrator's policy.
func policy(i wire.Info, add adder) {
	if len(i.Policy) == 0 {
		add("policy", ok, "", "the administrator's policy restricts nothing")
		return
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(i.Policy)) {
		value := fmt.Sprint(i.Policy[key])
		if list, isList := i.Policy[key].([]any); isList && len(list) == 0 {
			value = "none"
		} else if isList {
			value = strings.Trim(value, "[]")
		}
		parts = append(parts, key+"="+value)
	}
	add("policy", ok, "", "%s", strings.Join(parts, "; "))
}

func trip(f facts, add adder) {
	if f.tripErr != nil {
		add("round trip", fail, "see the log of tlsd", "tls.Backend: %v", f.tripErr)
		return
	}
	sorted := slices.Sorted(slices.Values(f.trips))
	if len(sorted) == 0 {
		return
	}
	median := sorted[len(sorted)/2].Round(time.Microsecond)
	if median > slowTrip {
		add("round trip", warn, "look for what keeps the machine busy",
			"tls.Backend takes %v (median of %d)", median, len(sorted))
		return
	}
	add("round trip", ok, "", "tls.Backend takes %v (median of %d)", median, len(sorted))
}

// conversation judges whether a server and a client could talk to each other (rehearse.go).
func conversation(r rehearsal, add adder) {
	switch {
	case r.step == "": // without OpenSSL there is no rehearsal; the finding "backend" says so
	case r.err == nil:
		add("conversation", ok, "", "a server and a client of one script have done a "+
			"handshake on 127.0.0.1, with %s; the client has verified the certificate",
			r.version)
	case isKind(r.err, client.KindDenied):
		add("conversation", ok, "", "not tried: %s: %v", r.step, r.err)
	case isKind(r.err, client.KindFile) && errnoOf(r.err) != "":
		add("conversation", fail, "check that tlsd sees the same files as you, above all "+
			"in "+os.TempDir()+" (PrivateTmp=, ProtectHome= in its unit, a container)",
			"%s: %v", r.step, r.err)
	case isKind(r.err, client.KindFile), isKind(r.err, client.KindHandshake),
		isKind(r.err, client.KindInternal):
		// An error of kind file without an errno means that tlsd can read the file, but
		// that OpenSSL does not accept its content.
		add("conversation", fail, "look into OpenSSL's configuration (openssl.cnf of "+
			"tlsd's OpenSSL): it may disable all ciphers or providers", "%s: %v",
			r.step, r.err)
	default:
		add("conversation", fail, "see the log of tlsd", "%s: %v", r.step, r.err)
	}
}

// names() says how tlsd looks up names, and warns of modules that tlsd does not ask.
func names(modules []string, add adder) {
	if len(modules) == 0 {
		add("names", ok, "", "tlsd looks up names in /etc/hosts and by DNS, as this "+
			"machine does")
		return
	}
	add("names", warn, "use addresses instead of names that only these modules know, such as "+
		"*.local of mdns, or add the names to /etc/hosts or DNS",
		"tlsd looks up names in /etc/hosts and by DNS; it does not ask %s, which "+
			"/etc/nsswitch.conf names", strings.Join(modules, ", "))
}
