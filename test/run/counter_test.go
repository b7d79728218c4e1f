package main

import (
	"strings"
	"testing"
)

// mixed are the events of a package with two tests. The first test passes. The second has two
// subtests: one is skipped, and one fails.
const mixed = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"all is well\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestB/one"}
{"Action":"output","Package":"p","Test":"TestB/one","Output":"    b_test.go:7: there is no valgrind\n"}
{"Action":"output","Package":"p","Test":"TestB/one","Output":"--- SKIP: TestB/one (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB/one"}
{"Action":"run","Package":"p","Test":"TestB/two"}
{"Action":"output","Package":"p","Test":"TestB/two","Output":"    b_test.go:9: 1 is not 2\n"}
{"Action":"fail","Package":"p","Test":"TestB/two"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p","Elapsed":1.5}
`

func TestEachTestIsCountedOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ events, want string }{
		"nothing": {"", `0 passed, 0 failed, 0 skipped
`},
		"passed, failed, skipped": {mixed, `    b_test.go:9: 1 is not 2
FAIL p                               1.5s  1 passed, 1 failed, 1 skipped
skipped 1 of p, such as TestB/one: there is no valgrind
1 passed, 1 failed, 1 skipped
`},
		"a test that does not come to an end": {`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}
{"Action":"fail","Package":"p"}
`, `panic: oh
FAIL p                               0.0s  0 passed, 1 failed
0 passed, 1 failed, 0 skipped
`},
		"something that is wrong after the tests": {`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"a goroutine is left\n"}
{"Action":"fail","Package":"p"}
`, `a goroutine is left
FAIL p                               0.0s  1 passed, 1 failed
1 passed, 1 failed, 0 skipped
`},
		"what cannot be built": {`{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1: undefined: x\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"start","Package":"p"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}
`, `p.go:1: undefined: x
FAIL p                               0.0s  0 passed, 1 failed
0 passed, 1 failed, 0 skipped
`},
		"no tests": {`{"Action":"skip","Package":"p"}
`, `0 passed, 0 failed, 0 skipped
`},
		"an end before the package's": {`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
`, `FAIL p                               0.0s  1 passed, 1 failed
1 passed, 1 failed, 0 skipped
`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			c := &counter{out: &out}
			if err := c.read(strings.NewReader(tt.events)); err != nil {
				t.Error(err)
			}
			c.summary()
			if out.String() != tt.want {
				t.Errorf("the counter prints\n%s\nwant\n%s", out.String(), tt.want)
			}
		})
	}
}

func TestWhatIsNotJSONIsAnError(t *testing.T) {
	t.Parallel()
	c := &counter{out: &strings.Builder{}}
	if c.read(strings.NewReader("flag provided but not defined\n")) == nil {
		t.Error("a line that is no JSON must be an error")
	}
}
