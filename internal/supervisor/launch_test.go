package supervisor

import (
	"runtime"
	"slices"
	"strconv"
	"testing"
)

// The memory of an idle worker does not grow with the processors of the machine.
func TestAWorkerOfOneSessionUsesFewProcessors(t *testing.T) {
	// Not parallel: it sets the number of processors.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(64))
	limit := "GOMAXPROCS=" + strconv.Itoa(processors)
	if env := workerEnv(nil, false); !slices.Contains(env, limit) {
		t.Errorf("the worker of one session has %q; want %s", env, limit)
	}
	if env := workerEnv(nil, true); slices.Contains(env, limit) {
		t.Errorf("the worker of many sessions has %q; want no limit", env)
	}
	// If a name occurs twice, the last variable counts.
	own := workerEnv([]string{"GOMAXPROCS=64"}, false)
	if own[len(own)-1] != "GOMAXPROCS=64" {
		t.Errorf("the operator's own number is not the last: %q", own)
	}
	runtime.GOMAXPROCS(2)
	if env := workerEnv(nil, false); !slices.Contains(env, "GOMAXPROCS=2") {
		t.Errorf("with two processors the worker has %q", env)
	}
}
