package client

import "os"

// Getenv is os.Getenv. But in a program with more rights than its user (set-uid, set-gid, file
// capabilities) every variable counts as not set, because that user has chosen the variables. The
// plugin uses secure_getenv(3) for the same purpose.
func Getenv(name string) string {
	if moreRights() {
		return ""
	}
	return os.Getenv(name)
}
