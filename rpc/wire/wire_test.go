package wire_test

import (
	"encoding/json"
	"testing"
	"time"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
)

// Each kind of error has a JSON-RPC code that no other kind has. The code is in the range for
// servers. Only the kinds "params" and "internal" have codes that JSON-RPC itself defines.
func TestEveryKindHasACodeOfItsOwn(t *testing.T) {
	t.Parallel()
	seen := map[int]kind.Kind{}
	for _, k := range kind.All {
		code, ok := wire.Codes[k]
		if !ok {
			t.Errorf("%s has no code", k)
		}
		if other, twice := seen[code]; twice {
			t.Errorf("%s and %s have the same code, %d", k, other, code)
		}
		seen[code] = k
		// JSON-RPC 2.0, section 5.1, reserves -32768 to -32000. Of these, -32099 to -32000
		// are for errors that a server defines.
		if k != kind.Params && k != kind.Internal && (code < -32099 || code > -32000) {
			t.Errorf("%s: %d is outside of JSON-RPC's range for servers", k, code)
		}
	}
	if len(wire.Codes) != len(kind.All) {
		t.Errorf("there are %d codes for %d kinds", len(wire.Codes), len(kind.All))
	}
}

// The limits are those of proto.md, and the largest blob fits into the longest line as base64.
func TestBoundsFitTogether(t *testing.T) {
	t.Parallel()
	if wire.MaxBlob != 16777216 || wire.MaxLine != 24117248 {
		t.Errorf("MaxBlob %d, MaxLine %d: proto.md says 16777216 and 24117248",
			wire.MaxBlob, wire.MaxLine)
	}
	if base64 := (wire.MaxBlob + 2) / 3 * 4; base64+64<<10 > wire.MaxLine {
		t.Errorf("%d bytes of base64 leave no room in a line of %d", base64, wire.MaxLine)
	}
}

// If a message is decoded and encoded again, its id has the same text.
func TestMessagesKeepTheIDAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, id := range []string{`"a"`, `1`, `-1`, `123456789012345678901234567890`, `null`, `"é"`} {
		in := `{"jsonrpc":"2.0","id":` + id + `,"result":0}`
		var r wire.Response
		if err := json.Unmarshal([]byte(in), &r); err != nil {
			t.Fatal(err)
		}
		out, err := json.Marshal(r)
		if err != nil || string(out) != in {
			t.Errorf("the message has become %s, %v; want %s", out, err, in)
		}
	}
}

// A timeout is rounded up to milliseconds, so that a short one does not become 0. A negative
// timeout becomes -1.
func TestATimeoutIsRoundedUpToMilliseconds(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration]int64{
		0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000,
		-1: -1, -time.Hour: -1,
	} {
		if got := wire.Milliseconds(timeout); got != want {
			t.Errorf("%v is %d ms, want %d", timeout, got, want)
		}
	}
}
