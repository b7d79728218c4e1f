package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tlsd/rpc"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// FuzzServe sends anything to a session without a library and without a network. Whatever it is, all
// answers are messages of JSON-RPC 2.0, and the session ends.
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		"", "\n", "nonsense\n", "[]\n", "[1]\n", "{}\n", "null", `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}` + "\n",
		`[{"jsonrpc":"2.0","id":1,"method":"tls.NewClient","params":["a",1]},{"jsonrpc":"2.0","method":"tls.Close","params":[1]}]`,
		`{"jsonrpc":"2.0","id":"x","method":"tls.Write","params":[1],"raw":3}` + "\nabc\n" + `{"jsonrpc":"2.0","id":null,"method":"tls.Info"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Write","raw":-1}` + "\n", `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":{"version":1,"firstHandle":7}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Version","params":{"handle":1}}` + "\r\n\r\n", `{"jsonrpc":"2.0","method":"$/cancelRequest","params":[1]}`,
		`{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`, "\xff\xfe\n", `{"jsonrpc":"2.0","id":1,"method":"tls.LastError"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := pair(t)
		defer ours.Close()
		ours.SetDeadline(time.Now().Add(patience))
		served := make(chan error, 1)
		cfg := rpc.Config{Session: session.Config{Engine: session.Stub(errors.New("none here"))}}
		go func() { served <- rpc.Serve(context.Background(), theirs, cfg) }()
		go func() {
			ours.Write(data) // fails if the server closes before
			ours.CloseWrite()
		}()
		r := wire.NewReader(ours, 64<<20)
		for {
			line, err := r.Line()
			if err != nil {
				if e := net.Error(nil); !errors.Is(err, io.EOF) && errors.As(err, &e) && e.Timeout() {
					t.Fatal("the session did not end")
				}
				break
			}
			answers := []json.RawMessage{line}
			if strings.HasPrefix(string(line), "[") {
				if err := json.Unmarshal(line, &answers); err != nil || len(answers) == 0 {
					t.Fatalf("%v in the batch %q", err, line)
				}
			}
			for _, a := range answers {
				var m map[string]json.RawMessage
				if err := json.Unmarshal(a, &m); err != nil {
					t.Fatalf("%v in %q", err, a)
				}
				_, hasResult := m["result"]
				_, hasError := m["error"]
				if string(m["jsonrpc"]) != `"2.0"` || m["id"] == nil || hasResult == hasError || len(m) != 3 {
					t.Fatalf("not an answer: %s", a)
				}
			}
		}
		select {
		case <-served:
		case <-time.After(patience):
			t.Fatal("Serve did not return")
		}
	})
}
