package domhost

import (
	"os"
	"path/filepath"
	"testing"
)

// Every script of examples/ runs in domhost.

// The fake plugin returns the data that was written to it. So a script reads its own data.
func TestEveryScriptOfExamplesRuns(t *testing.T) {
	t.Parallel()
	want := map[string]result{
		"https-client.dom": {stdout: "TLSv1.3, /CN=fake\nGET / HTTP/1.0\n37 bytes\n"},
		"echo-server.dom":  {stdout: "a client with TLSv1.3\n0 bytes echoed\n"},
		"many-clients.dom": {stdout: "client 1 of 2, TLSv1.3\nclient 2 of 2, TLSv1.3\n"},
		"sturdy-server.dom": {stdout: "listening on port 8443\nclient 1: 0 bytes\nclient " +
			"2: 0 bytes\n"},
		"chat-server.dom": {stdout: "listening on port 8443\n2 has come\n2 has left\n" +
			"3 has come\n3 has left\n"},
		"mutual-subjects-server.dom": {stdout: "server: the client is /CN=fake\nserver: " +
			"the client has left\n"},
		"mutual-subjects-client.dom": {stdout: "client: expected /CN=localhost, but this " +
			"is /CN=fake\n", status: 1},
		"http2-client.dom": {stdout: "the server does not speak HTTP/2\n", status: 1},
		"mtls-server.dom": {stdout: "listening on port 8443\n" +
			"client 1: fact, serial fact\n" +
			"client 2: fact, serial fact\n"},
		"mtls-client.dom": {stdout: "the server has said nothing\n", status: 1},
		// the fake plugin answers "ok" without a line end
		"starttls-client.dom": {stdout: "no answer\n", status: 1},
		"virtual-hosts.dom": {stdout: "listening on port 8443\nclient 1 asks for [fact]\n" +
			"client 2 asks for [fact]\n"},
		// The server's answer to the first client is still in the fake plugin. So the
		// server reads this answer as the data of the second client.
		"demo-server.dom": {stdout: "client 1 of 2: TLSv1.3, 0 bytes in, 78 bytes " +
			"out\nclient 2 of 2: TLSv1.3, 78 bytes in, 78 bytes out\n"},
		"demo-client.dom": {stdout: "backend:  openssl, Fake 1.0\nprotocol: " +
			"TLSv1.3\npeer:     /CN=fake\nsent:     18 bytes\n" +
			"GET / HTTP/1.0\n\nreceived: 18 bytes, and a proper end\n"},
	}
	scripts, err := filepath.Glob("../../../examples/*.dom")
	if err != nil || len(scripts) != len(want) {
		t.Fatalf("examples/ has %d scripts (%v); this test knows %d", len(scripts), err,
			len(want))
	}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		got := runScript(t, sanitized, string(text),
			[]string{"DOMHOST_PLUGIN_PATH=" + filepath.Dir(fakePlugin)},
			"-D", "COUNT=2")
		if got != want[name] {
			t.Errorf("%s:\ngot  %v\nwant %v", name, got, want[name])
		}
	}
}
