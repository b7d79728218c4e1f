package main

import "testing"

func TestOnlyTestsWithoutSubtestsAreCounted(t *testing.T) {
	t.Parallel()
	const out = `=== RUN   TestParent
=== RUN   TestParent/child
=== RUN   TestParent/child/a
text without a newline    --- PASS: TestParent/child/a (0.00s)
    --- SKIP: TestParent/child/b (0.00s)
        main_test.go:1: no tool
--- PASS: TestParent (0.00s)
    --- PASS: TestParent/child (0.00s)
        --- PASS: TestParent/child/a (0.00s)
--- PASS: TestAlone (0.01s)
--- FAIL: TestOther (0.00s)
PASS
`
	if got, want := count([]byte(out)), (counts{passed: 2, skipped: 1}); got != want {
		t.Errorf("count: %v, want %v", got, want)
	}
	if got := count([]byte("testing: warning: no tests to run\nPASS\n")); got.passed != 0 {
		t.Errorf("count of a run without tests: %v, want 0 passed", got)
	}
}
