package handoff

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzMessages: If a decoded message is encoded and decoded again, it is the same. No bytes of a
// worker can crash the decoder.
func FuzzMessages(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`,
		`{"ready":{"backend":"openssl","version":"OpenSSL 3","path":"/l","confinement":` +
			`{"seccomp":"on"}}}`,
		`{"ended":{"number":7,"notTaken":true,"error":"e"}}`,
		`{"pong":18446744073709551615}`, `{"audit":{"session":1,"event":{},"missed":3}}`,
		`{"config":{"a":[1]}}`, `{"ping":-1}`, `[`, ``,
		`{"session":{"number":1,"slot":-1,"uid":4294967295,"pid":1,"policy":{` +
			`"destinations":["*:443","10.0.0.0/8:*"],"listen":["127.0.0.1:8000-8999"],"min-tls":"1.3"}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip(t, data, new(FromWorker), new(FromWorker))
		roundTrip(t, data, new(ToWorker), new(ToWorker))
	})
}

// roundTrip decodes data into first, encodes first, and decodes the result into second.
func roundTrip(t *testing.T, data []byte, first, second any) {
	t.Helper()
	if decode(data, first) != nil {
		return
	}
	text, err := json.Marshal(first)
	if err != nil {
		t.Fatalf("%s becomes %+v, which has no JSON: %v", data, first, err)
	}
	if err := decode(text, second); err != nil {
		t.Fatalf("%s becomes %s, which is no message: %v", data, text, err)
	}
	again, err := json.Marshal(second)
	if err != nil || !reflect.DeepEqual(again, text) {
		t.Fatalf("%s becomes %s, which becomes %s, %v", data, text, again, err)
	}
}
