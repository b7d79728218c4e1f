package main

import (
	"os"
	"path/filepath"

	"tlsd/internal/safefile"
)

// This file opens the audit log and the key log. Both must belong to tlsd's user or root, and other
// users must have no access to them (see [safefile.Append]).

// appendTo opens a file for appending, and creates it if there is none. The path may be relative.
// The Name of the result is the absolute path.
func appendTo(path string) (*os.File, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return safefile.Append(full, uint32(os.Geteuid()))
}

// checkAppend returns the error that appendTo would return. It does not create the file.
func checkAppend(path string) error {
	full, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return safefile.CheckAppend(full, uint32(os.Geteuid()))
}
