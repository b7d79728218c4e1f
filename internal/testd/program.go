package testd

import (
	"os"
	"syscall"
)

// WriteProgram writes a file that a test executes later.
//
// A child that another test forks meanwhile inherits the open file until the child's own exec, and
// until then execve of the file fails with ETXTBSY. Go forks only while it holds syscall.ForkLock,
// so no child can inherit a file that is opened and closed under its read lock.
func WriteProgram(file string, content []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(file, content, 0o755)
}
