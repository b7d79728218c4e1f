package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// These are the types of flags. The error of Set says which values are accepted.

type text string

func (t *text) String() string { return string(*t) }

func (t *text) Set(s string) error {
	if s == "" {
		return errors.New("want a path")
	}
	*t = text(s)
	return nil
}

type boolean bool

func (b *boolean) String() string { return strconv.FormatBool(bool(*b)) }

func (b *boolean) IsBoolFlag() bool { return true }

func (b *boolean) Set(s string) error {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want true or false, or no value at all")
	}
	*b = boolean(v)
	return nil
}

type mode fs.FileMode

func (m *mode) String() string { return fmt.Sprintf("%04o", *m) }

func (m *mode) Set(s string) error {
	v, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || v > 0o777 {
		return errors.New("want permissions in octal, from 0 to 0777")
	}
	*m = mode(v)
	return nil
}

type number struct {
	p        *int
	min, max int
}

func (n *number) String() string {
	if n.p == nil {
		return ""
	}
	return strconv.Itoa(*n.p)
}

func (n *number) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < n.min || v > n.max {
		return fmt.Errorf("want a whole number from %d to %d", n.min, n.max)
	}
	*n.p = v
	return nil
}

// size is a number of bytes. Its text may have a unit: KiB, MiB or GiB.
type size struct {
	p        *int
	min, max int
	zero     bool // 0 is accepted, even if it is below min
}

func (n *size) String() string {
	if n.p == nil {
		return ""
	}
	return strconv.Itoa(*n.p)
}

func (n *size) Set(s string) error {
	digits, unit := s, 1
	for i, name := range []string{"KiB", "MiB", "GiB"} {
		if rest, ok := strings.CutSuffix(s, name); ok {
			digits, unit = rest, 1<<(10*(i+1))
		}
	}
	v, err := strconv.Atoi(digits)
	if err != nil || v < 0 || v > n.max/unit || v*unit < n.min && !(n.zero && v == 0) {
		if n.zero {
			return fmt.Errorf("want 0 or a number of bytes from %d to %d, such as "+
				"512MiB or 1GiB", n.min, n.max)
		}
		return fmt.Errorf("want a number of bytes from %d to %d, such as 512KiB, 16MiB "+
			"or 1048576", n.min, n.max)
	}
	*n.p = v * unit
	return nil
}

type duration struct {
	p    *time.Duration
	zero bool // 0 is accepted
}

func (d *duration) String() string {
	if d.p == nil {
		return ""
	}
	return d.p.String()
}

func (d *duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 || v == 0 && !d.zero {
		if d.zero {
			return errors.New("want a time such as 90s, 1m30s or 500ms, or 0")
		}
		return errors.New("want a time above 0 such as 90s, 1m30s or 500ms")
	}
	*d.p = v
	return nil
}

type choice struct {
	p    *string
	from []string
}

func (c *choice) String() string {
	if c.p == nil {
		return ""
	}
	return *c.p
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.from, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.from, ", "))
	}
	*c.p = s
	return nil
}

// paths is a list of absolute paths that exist; each Set adds to it.
type paths struct{ p *[]string }

func (l *paths) String() string {
	if l.p == nil {
		return ""
	}
	return strings.Join(*l.p, ",")
}

func (l *paths) Set(s string) error {
	for _, path := range strings.Split(s, ",") {
		path = strings.TrimSpace(path)
		if !filepath.IsAbs(path) || strings.Contains(path, ":") {
			return fmt.Errorf("want absolute paths without colons, separated by "+
				"commas; got %q", path)
		}
		if _, err := os.Stat(path); err != nil {
			return err
		}
		*l.p = append(*l.p, path)
	}
	return nil
}

// ids is a list of users or groups; each Set adds to it.
type ids struct {
	p      *[]uint32
	what   string
	lookup func(string) (string, error)
}

func (l *ids) String() string {
	if l.p == nil {
		return ""
	}
	return strings.Trim(fmt.Sprint(*l.p), "[]")
}

func (l *ids) Set(s string) error {
	for _, name := range strings.Split(s, ",") {
		name = strings.TrimSpace(name)
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			var number string
			if number, err = l.lookup(name); err == nil {
				id, err = strconv.ParseUint(number, 10, 32)
			}
		}
		if err != nil || id == 1<<32-1 { // no user has (uid_t)-1
			return fmt.Errorf("want names or numbers of %ss, with commas between "+
				"them; there is no %s %q", l.what, l.what, name)
		}
		*l.p = append(*l.p, uint32(id))
	}
	return nil
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
