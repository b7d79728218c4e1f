package confine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Become changes the groups, the group and the user of all threads of this process for good. The
// process must run as root. After an error the process must end. The rules:
//
//   - Call Become after the last exec, and before the process reads anything from the user. From
//     the change on, the user can stop the process. If the process were stopped between fork and
//     exec, its parent would hang (CLONE_VFORK).
//   - When the user changes, the kernel makes the process dumpable as fs.suid_dumpable says. So
//     Become makes the process undumpable again at once. If fs.suid_dumpable is 1 (for debugging),
//     the user has a moment to open the process's memory. Become then notes that the measure
//     notTraceable is not on, and why.
//   - Become then checks each thread. The four user numbers (real, effective, saved, filesystem),
//     the four group numbers and the groups must be those of id. The thread must have no
//     capability. At last Become checks that the process cannot become root again.
func (m Measures) Become(id Identity) error {
	if text, err := os.ReadFile("/proc/sys/fs/suid_dumpable"); err == nil &&
		strings.TrimSpace(string(text)) == "1" {
		m.note("notTraceable", errors.New("fs.suid_dumpable is 1: while the "+
			"worker changed to the user, the user could have opened its memory"))
	}
	groups := make([]int, len(id.Groups))
	for i, g := range id.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("setgroups to %d groups: %w", len(groups), err)
	}
	if err := syscall.Setresgid(int(id.GID), int(id.GID), int(id.GID)); err != nil {
		return fmt.Errorf("setresgid to %d: %w", id.GID, err)
	}
	if err := syscall.Setresuid(int(id.UID), int(id.UID), int(id.UID)); err != nil {
		return fmt.Errorf("setresuid to %d: %w", id.UID, err)
	}
	if err := hide(); err != nil {
		return err
	}
	if err := eachThread(id.check); err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno == 0 && id.UID != 0 {
		return fmt.Errorf("user %d can become root again", id.UID)
	}
	return nil
}

// hide makes the process undumpable, and checks the result.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_DUMPABLE: %w", err)
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || v != 0 {
		return fmt.Errorf("the process stays dumpable: %d, %v", v, err)
	}
	return nil
}

// check returns an error if the kernel's status of a thread does not show the identity, or shows a
// capability.
func (id Identity) check(status map[string]string) error {
	four := func(n uint32) string {
		return strings.TrimSpace(strings.Repeat(strconv.FormatUint(uint64(n), 10)+" ", 4))
	}
	groups := slices.Sorted(slices.Values(id.Groups))
	listed := make([]string, len(groups))
	for i, g := range groups {
		listed[i] = strconv.FormatUint(uint64(g), 10)
	}
	const none = "0000000000000000"
	for _, want := range []struct{ name, value string }{
		{"Uid", four(id.UID)}, {"Gid", four(id.GID)}, {"Groups", strings.Join(listed, " ")},
		{"CapPrm", none}, {"CapEff", none}, {"CapAmb", none},
	} {
		// Linux before 4.3 has no CapAmb.
		if got := status[want.name]; got != want.value &&
			!(want.name == "CapAmb" && got == "") {
			return fmt.Errorf("after the change to user %d a thread has %s %q instead "+
				"of %q", id.UID, want.name, got, want.value)
		}
	}
	return nil
}

// statusLines are the lines of a thread's status that eachThread passes on.
var statusLines = []string{"Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapAmb", "TracerPid"}

// eachThread calls look() with the status of every thread of the process (proc_pid_status(5)), also
// of threads that start meanwhile. All threads share one buffer. An idle worker does not collect
// garbage, so further buffers would stay in its memory.
func eachThread(look func(status map[string]string) error) error {
	seen := map[string]bool{}
	var text bytes.Buffer
	status := map[string]string{}
	for {
		before := len(seen)
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			if seen[task.Name()] {
				continue
			}
			text.Reset()
			f, err := os.Open(filepath.Join("/proc/self/task", task.Name(), "status"))
			if err == nil {
				_, err = text.ReadFrom(f)
				f.Close()
			}
			// The thread has ended.
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue
			}
			if err != nil {
				return err
			}
			seen[task.Name()] = true
			clear(status)
			for line := range bytes.Lines(text.Bytes()) {
				name, value, _ := bytes.Cut(line, []byte(":"))
				if slices.Contains(statusLines, string(name)) {
					words := strings.Fields(string(value))
					status[string(name)] = strings.Join(words, " ")
				}
			}
			if err := look(status); err != nil {
				return err
			}
		}
		if len(seen) == before {
			return nil
		}
	}
}

// Untraced returns an error if another process traces a thread of this process. After
// [Measures.Conceal] only root's tracers can attach. But a tracer that attached earlier can still
// read the memory of this process.
func Untraced() error {
	return eachThread(func(status map[string]string) error {
		if tracer := status["TracerPid"]; tracer != "" && tracer != "0" {
			return fmt.Errorf("process %s traces the worker, and could read its "+
				"keys; end that process, or start tlsd with --confine=off to "+
				"debug the worker", tracer)
		}
		return nil
	})
}
