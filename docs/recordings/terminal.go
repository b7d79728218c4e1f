package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// columns is the width of the terminal.
	columns = 110
	// runTimeout is the timeout of a command. It is so long because a command may build tlsd
	// without a cache.
	runTimeout = 10 * time.Minute
)

// run runs a command in a pseudo-terminal, and returns the lines of its output.
func run(command string) ([]string, error) {
	terminal, tty, err := openPTY()
	if err != nil {
		return nil, err
	}
	defer terminal.Close()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	// Leave out the variables of an outer make. With them, a make that the command runs would
	// print lines such as "Entering directory", which are not for the picture.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "MAKE") || strings.HasPrefix(e, "MFLAGS=")
	})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	tty.Close()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, readErr := io.Copy(&out, terminal) // ends when the last process has closed tty
	if errors.Is(readErr, unix.EIO) {     // Linux's way to report the end
		readErr = nil
	}
	if err := errors.Join(cmd.Wait(), readErr); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out.Bytes())
	}
	return shown(out.String()), nil
}

// openPTY opens a pseudo-terminal (pty(7)). The caller closes both ends.
func openPTY() (terminal, tty *os.File, err error) {
	terminal, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(terminal.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ,
			&unix.Winsize{Row: 40, Col: columns})
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number),
			os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		terminal.Close()
		return nil, nil, err
	}
	return terminal, tty, nil
}

// The parts of a line that differ in each run or machine, with their substitutes. Control sequences
// of the terminal are removed.
var replaced = []struct {
	part *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`), ""},
	{regexp.MustCompile(`[\w./-]*/tmp\.\w+/`), "/tmp/demo/"},
	{regexp.MustCompile(`(127\.0\.0\.1|localhost):\d+`), "$1:8443"},
	{regexp.MustCompile(`\b(process|worker) \d+`), "$1 4711"},
	{regexp.MustCompile(`"worker":\d+`), `"worker":4711`},
}

// shown splits an output into the lines that the picture shows.
func shown(output string) []string {
	var lines []string
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n ")
		for _, r := range replaced {
			line = r.part.ReplaceAllString(line, r.with)
		}
		if letters := []rune(line); len(letters) > columns {
			line = string(letters[:columns-1]) + "…"
		}
		lines = append(lines, line)
	}
	return lines
}
