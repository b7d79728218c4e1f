package client

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tlsd/internal/safefile"
)

// ConfPath is the path of root's settings for all callers of tlsd on this machine. The file has
// lines of "key = value". Empty lines and lines that begin with # are ignored.
//
//	socket = PATH             the socket of the system's tlsd
//	autostart = yes | no      whether a private tlsd may be started
//	trusted-users = USER …    names or numbers of users whose daemons are trusted like root's
//
// If the file has the key socket, callers try this socket, and none of SystemSockets. With
// autostart = yes, they then try the socket of a private tlsd. If $TLSD_SOCKET is set, callers try
// only the socket that the variable names (see DefaultSockets).
//
// It is an error if a user other than root can change the file. An unknown key is an error too,
// because its line may be a restriction, which must not be ignored. The plugin reads the file by
// the same rules (clientconf.h).
const ConfPath = "/etc/tlsd/client.conf"

// maxConf is the most bytes that the file may have.
const maxConf = 64<<10 - 1

// A Conf is the content of the file at ConfPath.
type Conf struct {
	There        bool     // the file exists
	Socket       string   // "" if the file names none
	Autostart    string   // "yes", "no", or "" if the file has no such line
	TrustedUsers []uint32 // the numbers of the users in trusted-users
	UnknownUsers []string // the names in trusted-users that no user has
}

// ReadConf reads the file at ConfPath. If the file does not exist, the result is an empty Conf, and
// no error.
func ReadConf() (Conf, error) {
	return readConf(ConfPath, userDatabase{"/etc/passwd", "/run/systemd/dynamic-uid"})
}

func readConf(path string, users userDatabase) (Conf, error) {
	text, err := safefile.Read(path, maxConf)
	if errors.Is(err, fs.ErrNotExist) {
		return Conf{}, nil
	}
	if err != nil {
		return Conf{}, err
	}
	if strings.ContainsRune(string(text), 0) {
		return Conf{}, fmt.Errorf("%s: it has a zero byte", path)
	}
	c := Conf{There: true}
	seen := map[string]bool{}
	number := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		number++
		key, value, found := strings.Cut(line, "=")
		key, value = strings.Trim(key, " \t\r"), strings.Trim(value, " \t\r")
		if key == "" && !found || strings.HasPrefix(key, "#") {
			continue
		}
		err := errors.New(`want "key = value"`)
		if found {
			err = c.set(key, value, users)
		}
		if err == nil && seen[key] {
			err = errors.New("the key is there twice")
		}
		if err != nil {
			return Conf{}, fmt.Errorf("%s: line %d: %w", path, number, err)
		}
		seen[key] = true
	}
	return c, nil
}

func (c *Conf) set(key, value string, users userDatabase) error {
	switch key {
	case "socket":
		if !filepath.IsAbs(value) || len(value) > maxSocketPath {
			return fmt.Errorf("socket: want an absolute path of at most %d bytes",
				maxSocketPath)
		}
		c.Socket = value
	case "autostart":
		if value != "yes" && value != "no" {
			return errors.New("autostart: want yes or no")
		}
		c.Autostart = value
	case "trusted-users":
		separates := func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }
		for _, name := range strings.FieldsFunc(value, separates) {
			if uid, ok := users.find(name); ok {
				c.TrustedUsers = append(c.TrustedUsers, uid)
			} else {
				c.UnknownUsers = append(c.UnknownUsers, name)
			}
		}
	default:
		return errors.New(`want "key = value" with the key socket, autostart or trusted-users`)
	}
	return nil
}

// trusts says whether the user's daemon is trusted.
func (c Conf) trusts(uid uint32) bool { return slices.Contains(c.TrustedUsers, uid) }

// A userDatabase finds the number of a user in files alone. It asks no other program and no server.
// The plugin finds users in the same way.
type userDatabase struct {
	passwd string // the path of passwd(5); tests use another file
	// The folder in which systemd has a link for each user of DynamicUser=. The link's name is
	// direct:NAME, and the link's target is the user's number.
	dynamic string
}

func (d userDatabase) find(name string) (uid uint32, ok bool) {
	if uid, ok := userNumber(name); ok {
		return uid, true
	}
	if f, err := os.Open(d.passwd); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Split(lines.Text(), ":")
			if len(fields) > 2 && fields[0] == name {
				if uid, ok := userNumber(fields[2]); ok {
					return uid, true
				}
			}
		}
	}
	if strings.Contains(name, "/") {
		return 0, false
	}
	target, err := os.Readlink(filepath.Join(d.dynamic, "direct:"+name))
	if err != nil {
		return 0, false
	}
	return userNumber(target)
}

func userNumber(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && text[0] != '+' && n < 1<<32-1 // (uid_t)-1 is no user
}
