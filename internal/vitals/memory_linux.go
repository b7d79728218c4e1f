package vitals

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memory makes the file of a page, a memfd whose size nobody can change.
func memory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("tlsd-vitals", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "vitals")
	if err = f.Truncate(size); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS,
			unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make the page of vitals: %w", err)
	}
	return f, nil
}
