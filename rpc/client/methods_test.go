package client

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// either returns err, or result if err is nil.
func either(result any, err error) any {
	if err != nil {
		return err
	}
	return result
}

// Each method sends its parameters by position, and returns the result. A time is sent in
// milliseconds, rounded up, and a relative path is sent as an absolute path.
func TestEachMethodSendsItsParametersByPosition(t *testing.T) {
	t.Parallel()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, params, result string // on the wire
		want                   any    // the result or error of call
		call                   func(context.Context, *Client) any
	}{
		{"tls.NewClient", `["example.com",443]`, "7", Handle(7),
			func(ctx context.Context, c *Client) any {
				return either(c.NewClient(ctx, "example.com", 443))
			}},
		{"tls.Handshake", `[7]`, "0", nil, func(ctx context.Context, c *Client) any {
			return c.Handshake(ctx, 7)
		}},
		{"tls.Write", `[7,"aGk="]`, "2", 2, func(ctx context.Context, c *Client) any {
			return either(c.Write(ctx, 7, []byte("hi")))
		}},
		{"tls.Write", `[7,""]`, "0", 0, func(ctx context.Context, c *Client) any {
			return either(c.Write(ctx, 7, nil))
		}},
		{"tls.Read", `[7,10]`, `"aGk="`, "hi", func(ctx context.Context, c *Client) any {
			p, err := c.Read(ctx, 7, 10)
			return either(string(p), err)
		}},
		{"tls.Close", `[7]`, "0", nil, func(ctx context.Context, c *Client) any {
			return c.CloseConn(ctx, 7)
		}},
		{"tls.SetInsecureSkipVerify", `[7,1]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetInsecureSkipVerify(ctx, 7, true)
			}},
		{"tls.SetInsecureSkipVerify", `[7,0]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetInsecureSkipVerify(ctx, 7, false)
			}},
		{"tls.SetTimeout", `[7,1500]`, "0", nil, func(ctx context.Context, c *Client) any {
			return c.SetTimeout(ctx, 7, 1500*time.Millisecond)
		}},
		{"tls.SetTimeout", `[7,1]`, "0", nil, func(ctx context.Context, c *Client) any {
			return c.SetTimeout(ctx, 7, 1)
		}},
		{"tls.SetTimeout", `[7,0]`, "0", nil, func(ctx context.Context, c *Client) any {
			return c.SetTimeout(ctx, 7, 0)
		}},
		{"tls.Wait", `[1500]`, "7", Handle(7), func(ctx context.Context, c *Client) any {
			return either(c.Wait(ctx, 1500*time.Millisecond))
		}},
		{"tls.Wait", `[1]`, "0", Handle(0), func(ctx context.Context, c *Client) any {
			return either(c.Wait(ctx, 1))
		}},
		{"tls.Wait", `[-1]`, "7", Handle(7), func(ctx context.Context, c *Client) any {
			return either(c.Wait(ctx, -1))
		}},
		{"tls.NewServerContext", `["` + wd + `/a.crt","/b.key"]`, "2147483647", Handle(2147483647),
			func(ctx context.Context, c *Client) any {
				return either(c.NewServerContext(ctx, "a.crt", "/b.key"))
			}},
		{"tls.Accept", `[3,"0.0.0.0",8443]`, "4", Handle(4),
			func(ctx context.Context, c *Client) any {
				return either(c.Accept(ctx, 3, "0.0.0.0", 8443))
			}},
		{"tls.CloseServerContext", `[3]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.CloseServerContext(ctx, 3)
			}},
		{"tls.SetCaBundle", `["` + filepath.Dir(wd) + `/ca.pem"]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetCaBundle(ctx, "../ca.pem")
			}},
		{"tls.SetCaBundle", `[""]`, "0", nil, func(ctx context.Context, c *Client) any {
			return c.SetCaBundle(ctx, "")
		}},
		{"tls.SetTimeout", `[0,1]`, "0", nil, func(ctx context.Context, c *Client) any {
			return c.SetTimeout(ctx, 0, time.Millisecond)
		}},
		{"tls.SetOption", `[7,"alpn","h2"]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetOption(ctx, 7, "alpn", "h2")
			}},
		{"tls.SetOption", `[7,"ca",""]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetOption(ctx, 7, "ca", "")
			}},
		{"tls.SetOption", `[7,"ca","` + wd + `/a"]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetOption(ctx, 7, "ca", "a")
			}},
		{"tls.SetOption", `[3,"client-ca","` + wd + `/a"]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetOption(ctx, 3, "client-ca", "a")
			}},
		{"tls.Info", `[7,"alpn"]`, `"h2"`, "h2", func(ctx context.Context, c *Client) any {
			return either(c.HandleInfo(ctx, 7, "alpn"))
		}},
		{"tls.SetCertificate", `[3,"*.a.test","` + wd + `/a.crt","/b.key"]`, "0", nil,
			func(ctx context.Context, c *Client) any {
				return c.SetCertificate(ctx, 3, "*.a.test", "a.crt", "/b.key")
			}},
		{"tls.Listen", `[3,"::",0]`, "4433", 4433,
			func(ctx context.Context, c *Client) any {
				return either(c.Listen(ctx, 3, "::", 0))
			}},
		{"tls.ReadPlain", `[7,10]`, `"aGk="`, "hi",
			func(ctx context.Context, c *Client) any {
				p, err := c.ReadPlain(ctx, 7, 10)
				return either(string(p), err)
			}},
		{"tls.WritePlain", `[7,"aGk="]`, "2", 2, func(ctx context.Context, c *Client) any {
			return either(c.WritePlain(ctx, 7, []byte("hi")))
		}},
		{"tls.WritePlain", `[7,""]`, "0", 0, func(ctx context.Context, c *Client) any {
			return either(c.WritePlain(ctx, 7, nil))
		}},
		{"tls.PeerCertSubject", `[7]`, `"/CN=x"`, "/CN=x",
			func(ctx context.Context, c *Client) any {
				return either(c.PeerCertSubject(ctx, 7))
			}},
		{"tls.Backend", ``, `"openssl"`, "openssl",
			func(ctx context.Context, c *Client) any {
				return either(c.Backend(ctx))
			}},
		{"tls.Version", ``, `"OpenSSL 3"`, "OpenSSL 3",
			func(ctx context.Context, c *Client) any {
				return either(c.Version(ctx, 0))
			}},
		{"tls.Version", `[7]`, `"TLSv1.3"`, "TLSv1.3",
			func(ctx context.Context, c *Client) any {
				return either(c.Version(ctx, 7))
			}},
		{"tls.LastError", ``, `"x"`, "x", func(ctx context.Context, c *Client) any {
			return either(c.LastError(ctx))
		}},
		{"tls.Info", ``, `{"backend":"stub","libssl":{"error":"none"}}`, "stub none",
			func(ctx context.Context, c *Client) any {
				i, err := c.Info(ctx)
				return either(i.Backend+" "+i.Libssl.Error, err)
			}},
		{"rpc.discover", ``, `{"openrpc":"1.3.2"}`, `{"openrpc":"1.3.2"}`,
			func(ctx context.Context, c *Client) any {
				d, err := c.Discover(ctx)
				return either(string(d), err)
			}},
	} {
		t.Run(tt.method+tt.params, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(s *standIn) {
				m := s.next()
				if m.Method != tt.method || string(m.Params) != tt.params {
					t.Errorf("sent %s%s, want %s%s", m.Method, m.Params,
						tt.method, tt.params)
				}
				s.result(m, tt.result)
				s.end()
			})
			if got := tt.call(t.Context(), c); got != tt.want {
				t.Errorf("%s returns %v, want %v", tt.method, got, tt.want)
			}
		})
	}
}

// A path that is not UTF-8 is refused, and so is an empty path of a certificate or key. Nothing is
// sent.
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
