//go:build systemd || packages || containers

package packaging

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// childOf returns the process ID of a process's child, or 0 if the process has none yet.
func childOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return child
}

// allOn says whether, by the output of tls.Info, each measure of the confinement is on.
func allOn(info string) bool {
	_, measures, ok := strings.Cut(info, `"confinement": {`)
	return ok && strings.Count(measures, `"on"`) == strings.Count(measures, `": "`) &&
		strings.Count(measures, `"on"`) >= 5
}
