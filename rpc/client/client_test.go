package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/rpc/wire"
)

// wantKind ends the test if err is not an *Error of the kind k.
func wantKind(t *testing.T, err error, k Kind) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != k {
		t.Fatalf("the error is %T %v, want an *Error of kind %s", err, err, k)
	}
	if e.Data.Kind != k || e.Code == 0 || e.Message == "" {
		t.Fatalf("the error lacks its kind, code or message: %+v", e)
	}
	return e
}

// Each call gets the answer with its id, in whatever order the answers come.
func TestAnswersFindTheirCallsInAnyOrder(t *testing.T) {
	t.Parallel()
	const n = 50
	c := talk(t, func(s *standIn) {
		var all []*asked
		for range n {
			all = append(all, s.expect("tls.Version", ""))
		}
		for i := range all { // the last call is answered first
			m := all[n-1-i]
			s.result(m, `"of `+strings.Trim(string(m.Params), "[]")+`"`)
		}
		s.end()
	})
	var wg sync.WaitGroup
	for i := 1; i <= n; i++ {
		wg.Go(func() {
			got, err := c.Version(t.Context(), Handle(i))
			if want := fmt.Sprintf("of %d", i); got != want || err != nil {
				t.Errorf("the call gets the answer %q, %v; want %q", got, err, want)
			}
		})
	}
	wg.Wait()
	c.Close()
}

// Data of any size and content arrives whole, in both directions.
func TestBlobsTravelAsBase64BothWays(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 5, 1 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			data := pattern(n)
			c := talk(t, func(s *standIn) {
				m := s.expect("tls.Write", "")
				var params struct {
					handle int
					data   []byte
				}
				err := json.Unmarshal(m.Params,
					&[]any{&params.handle, &params.data})
				if err != nil || !bytes.Equal(params.data, data) {
					t.Errorf("tls.Write has sent %d bytes, %v; want exactly "+
						"the %d bytes of the caller", len(params.data), err,
						n)
				}
				s.result(m, fmt.Sprint(n))
				s.result(s.expect("tls.Read", fmt.Sprintf("[7,%d]", max(n, 1))), `"`+base64.StdEncoding.EncodeToString(data)+`"`)
				s.end()
			})
			if got, err := c.Write(t.Context(), 7, data); got != n || err != nil {
				t.Fatalf("Write: %d, %v; want %d", got, err, n)
			}
			got, err := c.Read(t.Context(), 7, max(n, 1))
			if err != nil || got == nil || !bytes.Equal(got, data) {
				t.Fatalf("Read: %d bytes, %v; want %d", len(got), err, n)
			}
		})
	}
}

// The client's error has all that tlsd's error has. If the kind or the method is missing, the
// client adds it: the kind from the code, the method from the call. The session goes on.
func TestErrorsKeepEverythingThatTlsdSays(t *testing.T) {
	t.Parallel()
	expired := &wire.VerifyDetail{Code: 10, Reason: "certificate has expired", Depth: 1,
		Subject: "/CN=x", Store: "system"}
	for _, tt := range []struct {
		name, object string
		want         Error
	}{
		{"verify", `{"code":-32007,"message":"tls.Handshake: handle 3: expired","data":{"kind":"verify","op":"tls.Handshake","handle":3,
			"verify":{"code":10,"reason":"certificate has expired","depth":1,"subject":"/CN=x","store":"system"},"openssl":["a","b"],"later":1}}`,
			Error{Code: -32007, Kind: KindVerify,
				Message: "tls.Handshake: handle 3: expired",
				Data: wire.ErrorData{Kind: "verify", Op: "tls.Handshake", Handle: 3,
					Verify: expired, OpenSSL: []string{"a", "b"}}}},
		{"no data", `{"code":-32601,"message":"no such method"}`,
			Error{Code: -32601, Kind: KindParams, Message: "no such method",
				Data: wire.ErrorData{Kind: "params", Op: "tls.Handshake"}}},
		{"code without kind", `{"code":-32008,"message":"cut","data":{"errno":"ECONNRESET"}}`,
			Error{Code: -32008, Kind: KindIO, Message: "cut", Data: wire.ErrorData{
				Kind: "io", Op: "tls.Handshake", Errno: "ECONNRESET"}}},
		{"unknown code", `{"code":1,"message":"?"}`,
			Error{Code: 1, Kind: KindInternal, Message: "?",
				Data: wire.ErrorData{Kind: "internal", Op: "tls.Handshake"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(s *standIn) {
				m := s.expect("tls.Handshake", "[3]")
				s.say(`{"jsonrpc":"2.0","id":%s,"error":%s}`+"\n", m.ID, strings.Join(strings.Fields(tt.object), " "))
				s.result(s.expect("tls.LastError", ""), `"alive"`)
				s.end()
			})
			got := wantKind(t, c.Handshake(t.Context(), 3), tt.want.Kind)
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(tt.want)
			if string(a) != string(b) {
				t.Errorf("got  %s\nwant %s", a, b)
			}
			if got.Unwrap() != nil {
				t.Errorf("tlsd's error wraps the error %v, want none", got.Unwrap())
			}
			if text, err := c.LastError(t.Context()); text != "alive" || err != nil {
				t.Errorf("the session does not go on: %q, %v", text, err)
			}
		})
	}
}

// If tlsd sends a line that is no answer to a call in flight, the session is lost. All calls fail,
// and their errors say why.
func TestWhatIsNoAnswerLosesTheSession(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, line, why string }{
		{"no JSON", "hello", "no answer"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r", "no answer"},
		{"scalar", "7", "no answer"},
		{"batch", `[{"jsonrpc":"2.0","id":1,"result":0}]`, "no answer"},
		{"no version", `{"id":1,"result":0}`, "no JSON-RPC 2.0"},
		{"wrong version", `{"jsonrpc":"1.0","id":1,"result":0}`, "no JSON-RPC 2.0"},
		{"neither result nor error", `{"jsonrpc":"2.0","id":1}`, "no JSON-RPC 2.0"},
		{"both", `{"jsonrpc":"2.0","id":1,"result":0,"error":{"code":1,"message":"x"}}`, "no JSON-RPC 2.0"},
		{"a request", `{"jsonrpc":"2.0","id":1,"method":"x"}`, "no JSON-RPC 2.0"},
		{"id of nobody", `{"jsonrpc":"2.0","id":99,"result":0}`,
			"call 99, which is not in flight"},
		{"id of another type", `{"jsonrpc":"2.0","id":"1","result":0}`,
			"which no call has"},
		{"no id", `{"jsonrpc":"2.0","result":0}`, "which no call has"},
		{"id twice",
			`{"jsonrpc":"2.0","id":2,"result":""}` + "\n" + `{"jsonrpc":"2.0","id":2,"result":""}`, "call 2, which is not in flight"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(s *standIn) {
				s.next()
				s.next()
				s.say("%s\n", tt.line)
				s.end()
			})
			ended := make(chan error, 2)
			for range 2 {
				go func() {
					_, err := c.Backend(t.Context())
					ended <- err
				}()
			}
			for range 2 {
				err := <-ended
				if err == nil && strings.Contains(tt.line, `"id":2`) {
					continue // the first of the two answers is good
				}
				e := wantKind(t, err, KindLost)
				const lost = "tls.Backend: the session is lost: "
				if !strings.Contains(e.Message, tt.why) ||
					!strings.HasPrefix(e.Message, lost) {
					t.Errorf("message %q, want %q in it", e.Message, tt.why)
				}
			}
			_, err := c.Read(t.Context(), 1, 1)
			if e := wantKind(t, err, KindLost); e.Data.Op != "tls.Read" {
				t.Errorf("the error of a later Read names the method %q, want "+
					"tls.Read", e.Data.Op)
			}
		})
	}
}

// If tlsd closes the connection before it has answered, the session is lost.
func TestAnEndInTheMiddleLosesTheSession(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, last string }{
		{"between messages", ""},
		{"in a line", `{"jsonrpc":"2.0","id":1,"res`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(s *standIn) {
				s.next()
				s.say("%s", tt.last)
			})
			_, err := c.Read(t.Context(), 1, 10)
			wantKind(t, err, KindLost)
			_, err = c.Backend(t.Context())
			wantKind(t, err, KindLost)
		})
	}
}

// The last answer before the end of the stream counts even without a line feed.
func TestALastAnswerWithoutLineFeedCounts(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) { s.say(`{"jsonrpc":"2.0","id":%s,"result":"stub"}`, s.next().ID) })
	if b, err := c.Backend(t.Context()); b != "stub" || err != nil {
		t.Errorf("the call returns %q, %v; want the answer, stub", b, err)
	}
}

// If tlsd sends a line that is longer than wire.MaxLine, the session is lost. The client does not
// store the line.
func TestATooLongAnswerLosesTheSession(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		s.next()
		// fails when the client closes the connection
		s.conn.Write(bytes.Repeat([]byte("x"), wire.MaxLine+70_000))
	})
	_, err := c.Backend(t.Context())
	if wantKind(t, err, KindLost); !errors.Is(err, wire.ErrTooLong) {
		t.Errorf("the error is %v, want ErrTooLong", err)
	}
}

// If tlsd refuses a session, each call returns tlsd's reason.
func TestARefusedSessionSaysWhy(t *testing.T) {
	t.Parallel()
	const line = `{"jsonrpc":"2.0","id":null,"error":{"code":-32012,"message":"user 1000 is not allowed","data":{"kind":"denied"}}}` + "\n"
	ours, theirs := pair(t)
	if _, err := theirs.Write([]byte(line)); err != nil {
		t.Fatal(err)
	}
	// The connection is closed before the client sends anything. So the client's write fails,
	// but the client can still read the reason.
	theirs.Close()
	c := New(ours)
	defer c.Close()
	for range 2 {
		_, err := c.Hello(t.Context())
		if e := wantKind(t, err, KindDenied); e.Message != "user 1000 is not allowed" {
			t.Errorf("the error says %q, want tlsd's reason", e.Message)
		}
	}
}

// Close ends calls that wait, and later calls fail. Close may be called twice.
func TestCloseEndsWaitingCalls(t *testing.T) {
	t.Parallel()
	called := make(chan struct{})
	c := talk(t, func(s *standIn) {
		s.next()
		close(called)
		s.end()
	})
	failed := make(chan error)
	go func() {
		_, err := c.Read(context.Background(), 1, 1)
		failed <- err
	}()
	<-called
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close returns %v", err)
		}
	}
	err := <-failed
	if e := wantKind(t, err, KindLost); !errors.Is(err, net.ErrClosed) ||
		!strings.Contains(e.Message, "client has been closed") {
		t.Errorf("the waiting call fails with %v; want that the client was closed", err)
	}
	_, err = c.Backend(t.Context())
	wantKind(t, err, KindLost)
}

// The Read of a slowConn returns some time after the connection was closed.
type slowConn struct{ net.Conn }

func (c slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		time.Sleep(soon)
	}
	return n, err
}

// Close returns after the client's reading goroutine has ended, so the client leaves no goroutine.
func TestCloseWaitsForTheReader(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	defer theirs.Close()
	c := New(slowConn{ours})
	c.Close()
	select {
	case <-c.done:
	default:
		t.Error("Close has returned, and the reading goroutine still runs")
		<-c.done
	}
}

// A call that is too large, or cannot be encoded, fails and sends nothing. The session goes on.
func TestWhatIsTooLargeIsNotSent(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		s.result(s.expect("tls.Backend", ""), `"openssl"`)
		s.end()
	})
	_, err := c.Write(t.Context(), 1, make([]byte, wire.MaxBlob+1))
	wantKind(t, err, KindParams)
	wantKind(t, c.Call(t.Context(), "tls.Write", []any{1, make([]byte, wire.MaxLine)}, nil),
		KindParams)
	wantKind(t, c.Call(t.Context(), "tls.Write", []any{make(chan int)}, nil), KindParams)
	if _, err := c.Backend(t.Context()); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiters) != 0 {
		t.Errorf("the client still waits for answers to %d calls", len(c.waiters))
	}
}

// If a result has a type that its call cannot have, the call fails. The session goes on.
func TestAResultOfAnotherTypeIsAnErrorOfTheCallOnly(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		s.result(s.next(), `{"surprise":1}`)
		s.result(s.next(), `"openssl"`)
		s.end()
	})
	if _, err := c.NewClient(t.Context(), "h", 1); err == nil ||
		!strings.HasPrefix(err.Error(), "tls.NewClient: tlsd has answered") {
		t.Errorf("the error is %v; want it to quote tlsd's answer", err)
	}
	if _, err := c.Backend(t.Context()); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
}

// Hello fails with ErrVersion if the server speaks another version of the protocol.
func TestHelloChecksWhoAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, answer, why string }{
		{"ok", `{"version":1,"capabilities":["data"],"server":{"name":"tlsd","version":"1.0","pid":1}}`, ""},
		{"later version", `{"version":2,"capabilities":["data"],"server":{"name":"tlsd","version":"9.0","pid":1}}`, `"tlsd" "9.0" speaks version 2`},
		{"no version", `{}`, "version 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(s *standIn) {
				s.result(s.expect("tls.Hello", `{"version":1,"capabilities":["data"]}`), tt.answer)
				s.end()
			})
			h, err := c.Hello(t.Context())
			switch {
			case tt.why == "" && (err != nil || h.Server.Version != "1.0"):
				t.Errorf("Hello returns %+v, %v; want the version 1.0", h, err)
			case tt.why != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.why) ||
					!errors.Is(err, ErrVersion)):
				t.Errorf("the error is %v, want ErrVersion and %q", err, tt.why)
			}
		})
	}
}
