package testkit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Child is a child of a process. The state is that of proc_pid_stat(5), such as "S" for one that
// sleeps and "Z" for a zombie.
type Child struct {
	PID   int
	State string
}

// Children lists the children of a process, of all its threads. It needs Linux.
func Children(pid int) (children []Child) {
	pattern := fmt.Sprintf("/proc/%d/task/*/children", pid)
	files, _ := filepath.Glob(pattern) // the pattern is good
	for _, file := range files {
		text, _ := os.ReadFile(file) // fails for a thread that has ended
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
			i := bytes.LastIndexByte(stat, ')') // the end of the name
			if err == nil && i >= 0 && len(stat) > i+2 {
				children = append(children, Child{child, string(stat[i+2])})
			}
		}
	}
	return children
}
