package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The cost of a message depends on the CPUs of its sender and its receiver. On one CPU the kernel
// switches from one process to the other. On two CPUs the kernel must wake the receiver's CPU. If
// that CPU sleeps, the message takes several times as long. By default the kernel chooses the CPUs,
// and its choice is not known. So the way of a message (hops.go) is also measured on CPUs that the
// benchmark chooses.
const (
	oneCPU  = "one CPU"  // all processes
	twoCPUs = "two CPUs" // the measured program on the first CPU, all others on the second
	anyCPU  = "free"     // the kernel chooses
)

var errOneCPU = errors.New("there is one CPU only")

// placement binds families of processes to CPUs. The string how is oneCPU or twoCPUs, and program
// is the pid of the measured program. The function free ends the binding.
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
				// An error does not matter: it means that the thread has ended.
				unix.SchedSetaffinity(tid, set)
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
