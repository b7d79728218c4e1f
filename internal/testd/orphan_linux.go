package testd

import "syscall"

// dieWithParent makes the kernel kill a process when the thread that has started it ends.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
