package main

import (
	"strings"
	"testing"
)

// In each case the library gives answers that contradict each other, or that its manual pages do
// not allow. The scenario must end with the right error, or succeed if the answer does no harm.
func TestAnswersThatMakeNoSenseAreErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := newRig(t, w, "")
	r.accompany(t)
	for _, tt := range []struct {
		name     string
		scenario string
		orders   []string
		kind     string // of the error that ends the scenario; "": no error
		text     string // a part of the error's text
	}{
		{"more read than asked for", "open connection", []string{"SSL_read 1+ return=more"},
			"io", "moved 30001 bytes where 30000 were asked for"},
		{"more written than asked for", "open connection",
			[]string{"SSL_write 1 instead=0x7fffffff"}, "io", "moved 2147483647 bytes"},
		{"a failed read that is no error", "open connection",
			[]string{"SSL_read 1+ return=-1", "SSL_get_error 1+ return=0"}, "io",
			"gives no reason"},
		{"a handshake that is more than done", "server", []string{"SSL_do_handshake 1 " +
			"return=0x7fffffff"}, "handshake", "gives no reason"},
		{"a failed handshake that is no error", "server", []string{"SSL_do_handshake 1 " +
			"return=-1", "SSL_get_error 1 return=0"}, "handshake", "gives no reason"},
		{"an end without close_notify", "cut connection", []string{"SSL_get_error 1+ " +
			"return=6"}, "io", "without close_notify"},
		{"a failed system call that has not failed", "quiet connection",
			[]string{"SSL_get_error 1 return=5"}, "io", "gives no reason"},
		{"a certificate without a subject", "client", []string{"X509_NAME_oneline 1 " +
			"return=0"}, "handshake", "cannot tell the subject"},
		{"a reference that is none", "client", []string{"SSL_CTX_up_ref 1+ return=0"},
			"file", "SSL_CTX_up_ref failed"},
		{"one byte at a time", "echo",
			[]string{"SSL_read 1+ short=1", "SSL_write 1+ short=1"}, "", ""},
		{"a queue of errors without an end", "client",
			[]string{"ERR_peek_error 1+ return=1"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hits, v := r.visit(t, named(t, tt.scenario), "", tt.orders...)
			if len(hits) != len(tt.orders) {
				t.Errorf("%d of %d orders were followed, want all: %v", len(hits),
					len(tt.orders), hits)
			}
			text := ""
			if v.end != nil {
				text = v.end.Error()
			}
			if kindOf(v.end) != tt.kind || !strings.Contains(text, tt.text) {
				t.Errorf("the scenario ends with kind %q and the text %q; want "+
					"kind %q, and in the text: %s",
					kindOf(v.end), text, tt.kind, tt.text)
			}
		})
	}
}

// The library says that it must wait, although the socket is ready. The system reports a ready
// socket only once, so tlsd must not wait, and calls the library again. If the library says this
// again and again, the connection must fail.
func TestAWaitWithoutANeedEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, newWorld(t), "")
	for _, tt := range []struct {
		name   string
		orders []string
		want   string // a part of the error; "": there is none
	}{
		{"now and then", []string{"SSL_read 1 return=-1", "SSL_get_error 1 return=2",
			"SSL_read 2 return=-1", "SSL_get_error 2 return=2"}, ""},
		{"the other direction", []string{"SSL_read 1 return=-1", "SSL_get_error 1 return=3",
			"SSL_read 2 return=-1", "SSL_get_error 2 return=3"}, ""},
		{"always", []string{"SSL_read 1+ return=-1", "SSL_get_error 1+ return=2"},
			"a socket that is ready"},
		{"always the other direction",
			[]string{"SSL_read 1+ return=-1", "SSL_get_error 1+ return=3"},
			"a socket that is ready"},
		{"a write", []string{"SSL_write 1+ return=-1", "SSL_get_error 1+ return=3"},
			"a socket that is ready"},
		{"a write, now and then", []string{"SSL_write 1 return=-1", "SSL_get_error 1 " +
			"return=3", "SSL_write 2 return=-1", "SSL_get_error 2 return=3"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hits, v := r.visit(t, named(t, "open connection"), "", tt.orders...)
			if len(hits) != len(tt.orders) {
				t.Errorf("%d of %d orders were followed, want all: %v", len(hits),
					len(tt.orders), hits)
			}
			switch {
			case tt.want == "" && v.end != nil:
				t.Errorf("the scenario ends with %v; want no error", v.end)
			case tt.want != "" && (kindOf(v.end) != "io" ||
				!strings.Contains(v.end.Error(), tt.want)):
				t.Errorf("the scenario ends with kind %q and the error %v; want "+
					"kind io, and in the text: %s",
					kindOf(v.end), v.end, tt.want)
			}
		})
	}
}

// quiet is a connection with a peer that sends nothing.
var quiet = scenario{name: "quiet connection",
	prepare: func(v *visit) { v.h = v.connect(v.w.echo) }, run: func(v *visit) {
		_, err := v.c.Read(v.ctx, v.h, 100)
		v.did("tls.Read", err)
	}}

// echo is a connection with a peer that sends its input back.
var echo = scenario{name: "echo", prepare: func(v *visit) { v.h = v.connect(v.w.echo) },
	run: func(v *visit) {
		const text = "some words, one byte at a time"
		if _, err := v.c.Write(v.ctx, v.h, []byte(text)); !v.did("tls.Write", err) {
			return
		}
		for got := ""; got != text; {
			part, err := v.c.Read(v.ctx, v.h, 100)
			if !v.did("tls.Read", err) {
				return
			}
			if got += string(part); len(part) != 1 || !strings.HasPrefix(text, got) {
				v.wrong("Read has given %q, in all %q", part, got)
				return
			}
		}
	}}

func named(t *testing.T, name string) scenario {
	t.Helper()
	for _, s := range append(scenarios, quiet, echo) {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("there is no scenario %q", name)
	return scenario{}
}
