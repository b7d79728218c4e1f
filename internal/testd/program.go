package testd

import (
	"os"
	"syscall"
)

// WriteProgram writes a file that a test executes later.
//
// Another test may fork while the file is open for writing. The forked child would have the file
// open until it executes its own program. Until then an execve of the file would fail with ETXTBSY.
// Go forks only while it holds syscall.ForkLock. So WriteProgram opens and closes the file under
// the read lock.
func WriteProgram(file string, content []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(file, content, 0o755)
}
