package testd

import "syscall"

// dieWithParent makes the kernel kill a process when the thread that started the process ends.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
