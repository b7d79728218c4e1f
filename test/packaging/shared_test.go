//go:build systemd || packages || containers

package packaging

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// childOf is the child of a process, 0 if it has none yet.
func childOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return child
}

// allOn says whether each measure of confinement is on.
func allOn(info string) bool {
	_, measures, ok := strings.Cut(info, `"confinement": {`)
	return ok && strings.Count(measures, `"on"`) == strings.Count(measures, `": "`) &&
		strings.Count(measures, `"on"`) >= 5
}
