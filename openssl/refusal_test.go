package openssl

import (
	"strings"
	"testing"

	"github.com/ebitengine/purego"
)

// If OpenSSL refuses a setting, the error names the function that has refused it. No real OpenSSL
// refuses these settings, so functions of this test take the place of OpenSSL's.
func TestARefusedSettingIsNamed(t *testing.T) {
	t.Parallel()
	zero := purego.NewCallback(func() uintptr { return 0 })
	one := purego.NewCallback(func() uintptr { return 1 })
	for name, c := range map[string]struct{ setALPN, ctrl uintptr }{
		"SSL_set_alpn_protos":       {setALPN: one, ctrl: one}, // its result 1 is a failure
		"SSL_set_min_proto_version": {setALPN: zero, ctrl: zero},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &Library{gate: newGate(), sym: symbols{errClear: zero, errPeek: zero,
				sslSetALPN: c.setALPN, sslCtrl: c.ctrl}}
			conn := &Conn{lib: l, client: true}
			err := conn.Configure(ClientSettings{ALPN: []string{"h2"}, TLS13: true})
			if err == nil || !strings.Contains(err.Error(), name+" failed") {
				t.Errorf("the error is %v, which does not name %s", err, name)
			}
		})
	}
}
