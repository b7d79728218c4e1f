package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"tlsd/rpc/client"
)

// diagnosis says why a socket does not answer, and how to mend that.
type diagnosis struct{ text, mend string }

// diagnose explains an error of client.Dial.
func diagnose(path string, err error) diagnosis {
	return explain(path, stat(path), os.Geteuid(), err)
}

func explain(path string, file fileFact, uid int, err error) diagnosis {
	var (
		answer   *client.Error
		stranger *client.StrangerError
	)
	why := strings.TrimPrefix(err.Error(), path+": ")
	again := fmt.Sprintf("end that process and start tlsd again: tlsd --socket %s", quote(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diagnosis{"there is no such file",
			fmt.Sprintf("start a daemon: tlsd --socket %s; or let the plugin start a "+
				"private daemon: install tlsd in a directory of PATH, or set "+
				"TLSD_EXE to its path, and unset TLSD_AUTOSTART", quote(path))}
	case file.err == nil && file.mode.IsDir():
		return diagnosis{"it is a directory",
			"use the socket in it: " + quote(path+"/tlsd.sock")}
	case file.err == nil && file.mode&os.ModeSocket == 0:
		return diagnosis{"it is not a socket",
			"use another path, for tlsshim and for tlsd --socket; tlsd does not " +
				"replace other kinds of files"}
	case errors.Is(err, fs.ErrPermission):
		return diagnosis{fmt.Sprintf("permission denied for user %d%s", uid, owner(file)),
			fmt.Sprintf("ask whoever runs tlsd to start tlsd with --allow-uid=%d and "+
				"without --socket-mode; also check whether user %[1]d may enter "+
				"each directory of the socket's path", uid)}
	case errors.Is(err, syscall.ECONNREFUSED):
		return diagnosis{"no process listens: the socket is of a daemon that has ended",
			fmt.Sprintf("start tlsd again: tlsd --socket %s; it replaces the socket",
				quote(path))}
	case errors.Is(err, syscall.EPROTOTYPE):
		return diagnosis{"it is another kind of socket (not a stream)",
			"use tlsd's socket"}
	case errors.As(err, &stranger):
		return diagnosis{fmt.Sprintf("user %d runs the tlsd there, and could read all "+
			"data; this user is not root, not you (user %d), and not in trusted-users "+
			"of %s",
			stranger.Peer.UID, uid, client.ConfPath),
			"find out who this user is; then ask root to trust the user, or set " +
				"TLSD_SOCKET or --socket to the socket of root's daemon or of " +
				"your own"}
	case errors.Is(err, context.Canceled):
		return diagnosis{"interrupted", "try again"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return diagnosis{"a process listens, but does not answer in time",
			"give it more time with --timeout, or, if it hangs, " + again}
	case errors.Is(err, client.ErrVersion):
		return diagnosis{why, "install a tlsd and a tlsshim of the same release"}
	case errors.As(err, &answer) && answer.Kind == client.KindDenied:
		return diagnosis{answer.Message,
			fmt.Sprintf("ask whoever runs tlsd to start it with --allow-uid=%d", uid)}
	case errors.As(err, &answer) && answer.Kind == client.KindLost:
		return diagnosis{answer.Message,
			"see the log of tlsd; if the program that answers is not tlsd, name " +
				"another socket"}
	case errors.As(err, &answer):
		return diagnosis{answer.Message, "see the log of tlsd"}
	case len(path) > 107:
		return diagnosis{why, "choose a shorter path, here and for tlsd --socket"}
	}
	return diagnosis{why, "the manual page connect(2) explains errors of the system"}
}

// The function owner describes a socket's owner and permissions.
func owner(f fileFact) string {
	if f.err != nil {
		return ""
	}
	return fmt.Sprintf(" (mode %04o, user %d, group %d)", f.mode.Perm(), f.uid, f.gid)
}

// quote quotes a path for a shell.
func quote(path string) string {
	if path != "" && strings.IndexFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("/._-+,:=@", r))
	}) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
