//go:build !linux

package vitals

import (
	"errors"
	"fmt"
	"os"
)

// memory makes the file of a page: a temporary file without a name. The worker can change the size
// of this file. On Linux a seal forbids that (F_SEAL_SHRINK in fcntl(2)).
func memory(size int64) (*os.File, error) {
	f, err := os.CreateTemp("", "tlsd-vitals")
	if err != nil {
		return nil, fmt.Errorf("make the page of vitals: %w", err)
	}
	if err = errors.Join(os.Remove(f.Name()), f.Truncate(size)); err != nil {
		f.Close()
		return nil, fmt.Errorf("make the page of vitals: %w", err)
	}
	return f, nil
}
