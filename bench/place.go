package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The cost of a message depends on where the two processes run. On one CPU the kernel switches from
// one process to the other. On two CPUs it must wake the other CPU. If that CPU sleeps, this takes
// several times as long. By default the kernel chooses the CPUs, so the steps are measured in both
// ways.
const (
	oneCPU  = "one CPU"  // all processes
	twoCPUs = "two CPUs" // the program on one, all others on the other one
	anyCPU  = "free"     // the kernel chooses
)

var errOneCPU = errors.New("there is one CPU only")

// placement puts families of processes on CPUs, and returns the function that frees them again.
func placement(how string, program int, families ...map[int]usage) (free func(), err error) {
	var all unix.CPUSet
	free = func() {}
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return free, err
	}
	var cpus []int
	for i := 0; len(cpus) < 2 && i < len(all)*64; i++ {
		if all.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if how == twoCPUs && len(cpus) < 2 {
		return free, errOneCPU
	}
	put := func(pid int, set *unix.CPUSet) {
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, t := range threads {
			if tid, err := strconv.Atoi(t.Name()); err == nil {
				unix.SchedSetaffinity(tid, set) // it may have ended
			}
		}
	}
	each := func(set func(pid int) *unix.CPUSet) {
		for _, f := range families {
			for pid := range f {
				put(pid, set(pid))
			}
		}
	}
	var first, other unix.CPUSet
	first.Set(cpus[0])
	other.Set(cpus[len(cpus)-1])
	each(func(pid int) *unix.CPUSet {
		if how == oneCPU || pid == program {
			return &first
		}
		return &other
	})
	return func() { each(func(int) *unix.CPUSet { return &all }) }, nil
}
