package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// This file judges the environment of the caller: variables and installed programs.

// environment() judges the environment variables of the caller. Those of the daemon may differ.
func environment(f facts, add adder) {
	for _, name := range watched {
		v, set := f.env[name]
		if !set {
			add("environment", ok, "", "%s is not set", name)
			continue
		}
		s, remark, mend := variable(f, name, v)
		if remark != "" {
			remark = ": " + remark
		}
		add("environment", s, mend, "%s=%s%s", name, v, remark)
	}
}

// variable judges a variable that is set.
func variable(f facts, name, v string) (s severity, remark, mend string) {
	switch name {
	case "TLSD_SOCKET":
		if !filepath.IsAbs(v) {
			return warn, "it depends on the working directory", "set an absolute path"
		}
		return ok, "the only socket that is tried", ""
	case "TLSD_EXE":
		if f.exeErr != nil {
			return warn, fmt.Sprintf("cannot be started: %v", f.exeErr),
				"name an executable tlsd, or unset it"
		}
	case "TLSD_AUTOSTART":
		if v != "0" {
			return ok, "", ""
		}
		if !f.answers {
			return warn, "the plugin will not start a daemon, and none answers",
				"unset it, or start a daemon"
		}
		return ok, "the plugin does not start a daemon", ""
	case "XDG_RUNTIME_DIR":
		return runtimeDir(f.runtimeDir, f.uid, v)
	case "SSL_CERT_FILE", "SSL_CERT_DIR":
		return trustVariable(f, v)
	}
	return ok, "", ""
}

// runtimeDir judges XDG_RUNTIME_DIR.
func runtimeDir(d fileFact, uid int, v string) (s severity, remark, mend string) {
	switch {
	case !filepath.IsAbs(v):
		return warn, "ignored, because it is not absolute",
			"set an absolute path, or unset it"
	case d.err != nil:
		return warn, fmt.Sprintf("%v", errors.Unwrap(d.err)),
			"log in anew, so that the directory is made, or unset XDG_RUNTIME_DIR"
	case !d.mode.IsDir():
		return warn, "it is not a directory", "name a directory, or unset it"
	case int(d.uid) == uid && d.mode.Perm()&0o022 != 0:
		return warn, fmt.Sprintf("not used: its mode is %04o, and others can write to it",
				d.mode.Perm()),
			"remove the write permission of others (chmod go-w), or unset it"
	case int(d.uid) != uid:
		return warn, fmt.Sprintf("not used: it belongs to user %d, not to you (user %d)",
				d.uid, uid),
			"set it to a directory of your own, or unset it; su and sudo often keep " +
				"the old value"
	}
	return ok, "", ""
}

// trustVariable judges SSL_CERT_FILE or SSL_CERT_DIR.
func trustVariable(f facts, v string) (s severity, remark, mend string) {
	switch {
	case !f.answers:
		return ok, "has an effect only on a tlsd that you start by hand; a private tlsd " +
			"does not see this variable", ""
	case v == f.info.Trust.File || v == f.info.Trust.Dir:
		return ok, "tlsd uses the same", ""
	}
	return warn, "tlsd has an environment of its own, and does not see this variable",
		"set the variable where tlsd is started, or call tls.SetCaBundle"
}

// programs judges which programs are installed.
func programs(f facts, add adder) {
	for _, p := range []struct {
		name  string
		files []string
		mend  string
	}{
		{"tlsd", f.tlsd,
			"install tlsd into a directory of PATH, or set TLSD_EXE, so that the " +
				"plugin can start it"},
		{"TlsPlugin.so", f.plugin,
			"install it, or write its path into the plugin line of scripts"},
	} {
		if len(p.files) > 0 {
			add(p.name, ok, "", "%s", strings.Join(p.files, ", "))
			continue
		}
		add(p.name, warn, p.mend, "not found beside tlsshim nor on PATH")
	}
}
