package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEachMethodSendsItsParametersByPosition(t *testing.T) {
	t.Parallel()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, params, result string
		call                   func(context.Context, *Client) (any, error)
		want                   any
	}{
		{"tls.NewClient", `["example.com",443]`, "7", func(ctx context.Context, c *Client) (any, error) { return c.NewClient(ctx, "example.com", 443) }, Handle(7)},
		{"tls.Handshake", `[7]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.Handshake(ctx, 7) }, nil},
		{"tls.Write", `[7,"aGk="]`, "2", func(ctx context.Context, c *Client) (any, error) { return c.Write(ctx, 7, []byte("hi")) }, 2},
		{"tls.Write", `[7,""]`, "0", func(ctx context.Context, c *Client) (any, error) { return c.Write(ctx, 7, nil) }, 0},
		{"tls.Read", `[7,10]`, `"aGk="`, func(ctx context.Context, c *Client) (any, error) {
			p, err := c.Read(ctx, 7, 10)
			return string(p), err
		}, "hi"},
		{"tls.Close", `[7]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.CloseConn(ctx, 7) }, nil},
		{"tls.SetInsecureSkipVerify", `[7,1]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetInsecureSkipVerify(ctx, 7, true) }, nil},
		{"tls.SetInsecureSkipVerify", `[7,0]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetInsecureSkipVerify(ctx, 7, false) }, nil},
		{"tls.SetTimeout", `[7,1500]`, "0", func(ctx context.Context, c *Client) (any, error) {
			return nil, c.SetTimeout(ctx, 7, 1500*time.Millisecond)
		}, nil},
		{"tls.SetTimeout", `[7,1]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetTimeout(ctx, 7, 1) }, nil},
		{"tls.SetTimeout", `[7,0]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetTimeout(ctx, 7, 0) }, nil},
		{"tls.Wait", `[1500]`, "7", func(ctx context.Context, c *Client) (any, error) {
			return c.Wait(ctx, 1500*time.Millisecond)
		}, Handle(7)},
		{"tls.Wait", `[1]`, "0", func(ctx context.Context, c *Client) (any, error) {
			return c.Wait(ctx, 1)
		}, Handle(0)},
		{"tls.Wait", `[-1]`, "7", func(ctx context.Context, c *Client) (any, error) {
			return c.Wait(ctx, -1)
		}, Handle(7)},
		{"tls.NewServerContext", `["` + wd + `/a.crt","/b.key"]`, "2147483647", func(ctx context.Context, c *Client) (any, error) {
			return c.NewServerContext(ctx, "a.crt", "/b.key")
		}, Handle(2147483647)},
		{"tls.Accept", `[3,"0.0.0.0",8443]`, "4", func(ctx context.Context, c *Client) (any, error) { return c.Accept(ctx, 3, "0.0.0.0", 8443) }, Handle(4)},
		{"tls.CloseServerContext", `[3]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.CloseServerContext(ctx, 3) }, nil},
		{"tls.SetCaBundle", `["` + filepath.Dir(wd) + `/ca.pem"]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetCaBundle(ctx, "../ca.pem") }, nil},
		{"tls.SetCaBundle", `[""]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetCaBundle(ctx, "") }, nil},
		{"tls.SetTimeout", `[0,1]`, "0", func(ctx context.Context, c *Client) (any, error) {
			return nil, c.SetTimeout(ctx, 0, time.Millisecond)
		}, nil},
		{"tls.SetOption", `[7,"alpn","h2"]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetOption(ctx, 7, "alpn", "h2") }, nil},
		{"tls.SetOption", `[7,"ca",""]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetOption(ctx, 7, "ca", "") }, nil},
		{"tls.SetOption", `[7,"ca","` + wd + `/a"]`, "0", func(ctx context.Context, c *Client) (any, error) { return nil, c.SetOption(ctx, 7, "ca", "a") }, nil},
		{"tls.SetOption", `[3,"client-ca","` + wd + `/a"]`, "0", func(ctx context.Context, c *Client) (any, error) {
			return nil, c.SetOption(ctx, 3, "client-ca", "a")
		}, nil},
		{"tls.Info", `[7,"alpn"]`, `"h2"`, func(ctx context.Context, c *Client) (any, error) { return c.HandleInfo(ctx, 7, "alpn") }, "h2"},
		{"tls.SetCertificate", `[3,"*.a.test","` + wd + `/a.crt","/b.key"]`, "0", func(ctx context.Context, c *Client) (any, error) {
			return nil, c.SetCertificate(ctx, 3, "*.a.test", "a.crt", "/b.key")
		}, nil},
		{"tls.Listen", `[3,"::",0]`, "4433", func(ctx context.Context, c *Client) (any, error) { return c.Listen(ctx, 3, "::", 0) }, 4433},
		{"tls.ReadPlain", `[7,10]`, `"aGk="`, func(ctx context.Context, c *Client) (any, error) {
			p, err := c.ReadPlain(ctx, 7, 10)
			return string(p), err
		}, "hi"},
		{"tls.WritePlain", `[7,"aGk="]`, "2", func(ctx context.Context, c *Client) (any, error) { return c.WritePlain(ctx, 7, []byte("hi")) }, 2},
		{"tls.WritePlain", `[7,""]`, "0", func(ctx context.Context, c *Client) (any, error) { return c.WritePlain(ctx, 7, nil) }, 0},
		{"tls.PeerCertSubject", `[7]`, `"/CN=x"`, func(ctx context.Context, c *Client) (any, error) { return c.PeerCertSubject(ctx, 7) }, "/CN=x"},
		{"tls.Backend", ``, `"openssl"`, func(ctx context.Context, c *Client) (any, error) { return c.Backend(ctx) }, "openssl"},
		{"tls.Version", ``, `"OpenSSL 3"`, func(ctx context.Context, c *Client) (any, error) { return c.Version(ctx, 0) }, "OpenSSL 3"},
		{"tls.Version", `[7]`, `"TLSv1.3"`, func(ctx context.Context, c *Client) (any, error) { return c.Version(ctx, 7) }, "TLSv1.3"},
		{"tls.LastError", ``, `"x"`, func(ctx context.Context, c *Client) (any, error) { return c.LastError(ctx) }, "x"},
		{"tls.Info", ``, `{"backend":"stub","libssl":{"error":"none"}}`, func(ctx context.Context, c *Client) (any, error) {
			i, err := c.Info(ctx)
			return i.Backend + " " + i.Libssl.Error, err
		}, "stub none"},
		{"rpc.discover", ``, `{"openrpc":"1.3.2"}`, func(ctx context.Context, c *Client) (any, error) {
			d, err := c.Discover(ctx)
			return string(d), err
		}, `{"openrpc":"1.3.2"}`},
	} {
		t.Run(tt.method+tt.params, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(s *standIn) {
				m := s.next()
				if m.Method != tt.method || string(m.Params) != tt.params {
					t.Errorf("sent %s%s, want %s%s", m.Method, m.Params, tt.method, tt.params)
				}
				s.result(m, tt.result)
				s.end()
			})
			if got, err := tt.call(t.Context(), c); got != tt.want || err != nil {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestAPathThatCannotBeSentIsRefused(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) { s.end() })
	wantKind(t, c.SetCaBundle(t.Context(), "a\xff.pem"), KindParams)
	wantKind(t, c.SetOption(t.Context(), 1, "ca", "a\xff.pem"), KindParams)
	for _, path := range []string{"", "a\xff.pem"} {
		_, err := c.NewServerContext(t.Context(), "/a", path)
		wantKind(t, err, KindParams)
		wantKind(t, c.SetCertificate(t.Context(), 1, "", path, "/a"), KindParams)
	}
}

func TestSocketsAreSearchedInOrder(t *testing.T) {
	t.Parallel()
	private := fmt.Sprintf("/tmp/tlsd-%d/tlsd.sock", os.Geteuid())
	const run, folder = "/run/tlsd.sock", "/run/tlsd/tlsd.sock"
	open, own := t.TempDir(), t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	foreign := "/"
	if os.Geteuid() == 0 {
		foreign = t.TempDir()
		if err := os.Chown(foreign, 1234, 0); err != nil {
			t.Fatal(err)
		}
	}
	system := Conf{There: true, Socket: "/run/x"}
	both := Conf{There: true, Socket: "/run/x", Autostart: "yes"}
	for _, tt := range []struct {
		name, socket, runtime string
		conf                  Conf
		want                  []string
	}{
		{"nothing set", "", "", Conf{}, []string{run, folder, private}},
		{"a relative runtime directory", "", "run", Conf{}, []string{run, folder, private}},
		{"a runtime directory", "", own, Conf{}, []string{own + "/tlsd.sock", run, folder}},
		{"one that is not there", "", "/run/user/none", Conf{}, []string{"/run/user/none/tlsd.sock", run, folder}},
		{"one of another user", "", foreign, Conf{}, []string{run, folder, private}},
		{"one that others can write to", "", open, Conf{}, []string{run, folder, private}},
		{"a socket alone", "/tmp/x", "", Conf{}, []string{"/tmp/x"}},
		{"a socket wins", "/tmp/x", own, system, []string{"/tmp/x"}},
		{"the system's", "", own, system, []string{"/run/x"}},
		{"the system's, and a private one", "", own, both, []string{"/run/x", own + "/tlsd.sock"}},
		{"the system's, and a private one elsewhere", "", "", both, []string{"/run/x", private}},
	} {
		env := map[string]string{"TLSD_SOCKET": tt.socket, "XDG_RUNTIME_DIR": tt.runtime}
		if got := DefaultSockets(func(k string) string { return env[k] }, tt.conf); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// listen makes a socket. The script plays for the first program that connects.
func listen(t *testing.T, path string, script func(*standIn)) {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if conn, err := l.Accept(); err == nil {
			play(t, conn, script)
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
}

func TestTheFirstSocketThatAnswersIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing, stale, file, denies, good := dir+"/missing", dir+"/stale", dir+"/file", dir+"/denies", dir+"/good"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listen(t, denies, func(s *standIn) {
		s.say(`{"jsonrpc":"2.0","id":null,"error":{"code":-32012,"message":"not you","data":{"kind":"denied"}}}` + "\n")
	})
	listen(t, good, func(s *standIn) {
		s.result(s.expect("tls.Hello", ""), `{"version":1,"capabilities":["data"],"server":{"name":"stand-in"}}`)
		s.end()
	})
	long := dir + "/" + strings.Repeat("x", 110)

	bad := []string{missing, stale, file, denies, long}
	c, path, err := DialFirst(t.Context(), append(bad, good))
	if err != nil || path != good {
		t.Fatalf("got %q, %v", path, err)
	}
	c.Close()

	_, _, err = DialFirst(t.Context(), []string{missing, stale, file, long})
	var none *NoDaemonError
	if !errors.As(err, &none) || len(none.Tried) != 4 {
		t.Fatalf("error %v", err)
	}
	for _, path := range []string{missing, stale, file, long} {
		if !strings.Contains(err.Error(), path+":") {
			t.Errorf("%s is not named in %q", path, err)
		}
	}
	if !strings.Contains(none.Tried[3].Err.Error(), "at most 107") {
		t.Errorf("the length of a path is not explained: %v", none.Tried[3].Err)
	}
	if !errors.Is(none.Tried[0].Err, fs.ErrNotExist) || !errors.Is(none.Tried[1].Err, syscall.ECONNREFUSED) {
		t.Errorf("the system's errors are lost: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = DialFirst(ctx, []string{good, denies})
	if !errors.Is(err, context.Canceled) || !errors.As(err, &none) || len(none.Tried) != 1 {
		t.Errorf("error %v, want context.Canceled after one attempt", err)
	}
}

func TestOnlyRootAndTheCallerAreTrusted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		uid, euid uint32
		ok        bool
	}{{0, 0, true}, {0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {1000, 0, false}, {4294967295, 1000, false}} {
		err := Peer{PID: 1, UID: tt.uid}.checkTrusted("/s", int(tt.euid), noConf)
		if errors.As(err, new(*StrangerError)) == tt.ok || (err == nil) != tt.ok {
			t.Errorf("user %d, as %d: %v", tt.uid, tt.euid, err)
		}
	}
}

func TestThePeerIsWhoMadeTheSocket(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	listen(t, path, func(s *standIn) {
		s.result(s.expect("tls.Hello", ""), `{"version":1,"capabilities":["data"],"server":{"name":"stand-in"}}`)
		s.end()
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if want := (Peer{os.Getpid(), uint32(os.Getuid()), uint32(os.Getgid())}); c.Peer() != want {
		t.Errorf("got %+v, want %+v", c.Peer(), want)
	}
}

func TestADeniedUserLearnsIt(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	listen(t, path, func(s *standIn) {
		s.say(`{"jsonrpc":"2.0","id":null,"error":{"code":-32012,"message":"user 7 may not","data":{"kind":"denied"}}}` + "\n")
	})
	_, err := Dial(t.Context(), path)
	if e := wantKind(t, err, KindDenied); e.Message != "user 7 may not" || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}
