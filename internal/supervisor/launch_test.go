package supervisor

import (
	"runtime"
	"slices"
	"strconv"
	"testing"
)

// A worker of one session uses few processors of a large machine, because each processor costs
// memory even while the worker is idle. The operator can set another number of processors.
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
		t.Errorf("the operator's GOMAXPROCS=64 is not the last variable: %q", own)
	}
	runtime.GOMAXPROCS(2)
	if env := workerEnv(nil, false); !slices.Contains(env, "GOMAXPROCS=2") {
		t.Errorf("on a machine with 2 processors the worker has %q; want GOMAXPROCS=2", env)
	}
}
