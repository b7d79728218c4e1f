package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machineInfo describes the machine on which the results were measured.
type machineInfo struct {
	CPU       string  `json:"cpu"`
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memoryGiB"`
	Kernel    string  `json:"kernel"`
	System    string  `json:"system"`
}

func (m machineInfo) String() string {
	return fmt.Sprintf("%s, %d cores, %.0f GiB, Linux %s, %s", m.CPU, m.Cores, m.MemoryGiB,
		m.Kernel, m.System)
}

func machine() machineInfo {
	m := machineInfo{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(),
		System: strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`),
	}
	if fields := strings.Fields(field("/proc/meminfo", "MemTotal")); len(fields) > 0 {
		kib, _ := strconv.ParseFloat(fields[0], 64)
		m.MemoryGiB = kib / (1 << 20)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// A load says for what the machine's CPU time was used during the run. A field is a share of the
// whole time, from 0 to 1. The rest of the time was idle.
type load struct {
	Own    float64 `json:"own"`    // the benchmark with all that it has started
	Others float64 `json:"others"` // all other processes of the machine
	Stolen float64 `json:"stolen"` // other guests of the same host
}

func (l load) String() string {
	return fmt.Sprintf("CPU time of the machine during the run: %.0f %% benchmark, %.0f %% "+
		"others, %.0f %% stolen by other guests",
		100*l.Own, 100*l.Others, 100*l.Stolen)
}

// cpuTimes are readings of the clocks. Only the difference of two readings has a meaning.
type cpuTimes struct{ all, busy, stolen, own time.Duration }

// cpuNow reads the clocks. The field own counts this process, and its children that have ended.
func cpuNow() cpuTimes {
	const tick = 10 * time.Millisecond // of /proc/stat: USER_HZ is 100 (proc(5))
	var t cpuTimes
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	// cpu user nice system idle iowait irq softirq steal …; guest times are in user already.
	for i, f := range strings.Fields(line) {
		n, _ := strconv.ParseInt(f, 10, 64)
		d := time.Duration(n) * tick
		switch {
		case i == 0 || i > 8:
			continue
		case i == 8:
			t.stolen = d
		case i != 4 && i != 5:
			t.busy += d
		}
		t.all += d
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			t.own += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return t
}

// loadSince returns the load between two readings.
func (now cpuTimes) loadSince(then cpuTimes) load {
	all := float64(max(now.all-then.all, 1))
	own := float64(now.own - then.own)
	return load{own / all, max(0, float64(now.busy-then.busy)-own) / all,
		float64(now.stolen-then.stolen) / all}
}

// field returns the value of the first line "name: value" or "name=value" of a file, or "unknown".
func field(file, name string) string {
	text, _ := os.ReadFile(file)
	for _, line := range strings.Split(string(text), "\n") {
		if i := strings.IndexAny(line, ":="); i >= 0 &&
			strings.TrimSpace(line[:i]) == name {
			return strings.TrimSpace(line[i+1:])
		}
	}
	return "unknown"
}
