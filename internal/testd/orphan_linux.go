package testd

import "syscall"

// dieWithParent has the kernel kill a process when the thread ends that has started it.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
