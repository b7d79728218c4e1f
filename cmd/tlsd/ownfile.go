package main

import (
	"os"
	"path/filepath"

	"tlsd/internal/safefile"
)

// This file opens the audit log and the key log. Only tlsd may have access to them; see
// [safefile.Append].

// appendTo opens a file at its end, or makes it. The file's name is the absolute path.
func appendTo(path string) (*os.File, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return safefile.Append(full, uint32(os.Geteuid()))
}

// checkAppend says whether appendTo could open the file, and does not make it.
func checkAppend(path string) error {
	full, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return safefile.CheckAppend(full, uint32(os.Geteuid()))
}
