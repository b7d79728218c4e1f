package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tlsd/openssl"
)

// check carries out --check, and returns the exit status. The caller must have read the settings
// without an error. check examines the paths of the sockets, the audit log, the key log, the
// library and the policy. It changes nothing.
func check(w io.Writer, o *options) int {
	status := 0
	report := func(what, good string, err error) {
		if err != nil {
			status = 1
			fmt.Fprintf(w, "fail  %s: %v\n", what, err)
			return
		}
		fmt.Fprintf(w, "ok    %s: %s\n", what, good)
	}
	report("configuration file", o.config, nil)
	path, err := o.socketPath()
	if err == nil {
		err = checkSocket(path)
	}
	report("socket", path, err)
	switch admin, preset := o.adminPath(); {
	case admin == "":
		report("admin socket", none, nil)
	case preset: // no check: tlsd makes the folder, and can run without this socket
		report("admin socket", admin, nil)
	default:
		report("admin socket", admin, checkSocket(admin))
	}
	if o.auditLog != "" {
		report("audit log", o.auditLog, checkAppend(o.auditLog))
	}
	if o.keyLog != "" {
		report("key log", o.keyLog, checkAppend(o.keyLog))
	}
	library, err := checkLibrary(o.libssl)
	report("library", library, err)
	rules, err := loadRules(o.policy)
	if o.policy == "" {
		report("policy", none, err)
		return status
	}
	report("policy", o.policy, err)
	if err == nil {
		rules.print(w)
	}
	return status
}

// checkSocket returns an error if tlsd could not listen at the path. A socket at the path is no
// error: another tlsd may be running.
func checkSocket(path string) error {
	var address unix.RawSockaddrUnix
	if most := len(address.Path) - 1; len(path) > most {
		return fmt.Errorf("%s: the path has %d bytes, and a socket's path has at most "+
			"%d; choose a shorter one", path, len(path), most)
	}
	switch info, err := os.Lstat(path); {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there, and is not a socket; move it away or choose "+
			"another path", path)
	case err == nil:
		return nil // the socket of a service manager or of a running tlsd
	}
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no directory %s; make it", path, dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: %s is not a directory", path, dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s: this user cannot make a socket in %s: %w", path, dir, err)
	}
	return nil
}

// checkLibrary loads the library as a worker does, and returns its version and path.
func checkLibrary(path string) (string, error) {
	lib, err := openssl.Load(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s", lib.Version(), lib.Path()), nil
}
