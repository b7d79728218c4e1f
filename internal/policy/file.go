package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"tlsd/internal/safefile"
)

const (
	// maxFile limits the file, in bytes.
	maxFile = 1 << 20
	// maxPolicy limits the policy of one user, as JSON, in bytes. The policy must fit into a
	// message to a worker.
	maxPolicy = 32 << 10
)

// File is a valid policy file: TOML with a table [default] and tables [user.NAME]. NAME is a name
// of the user database or a number.
type File struct {
	preset Policy // the policy of [default]
	// users has the policies of users with a table. A key that the table lacks has the value of
	// [default].
	users map[uint32]Policy
	names map[uint32]string // the NAME of each of these users in the file
}

// Load reads a file. If another user than root and this process's user can change the file, or a
// folder or link in its path, Load refuses the file. Load also refuses a file without a line feed
// at its end, because the file was probably cut off.
func Load(path string) (*File, error) {
	text, err := safefile.Read(path, maxFile, uint32(os.Geteuid()))
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if lines := bytes.TrimRight(text, " \t"); len(lines) > 0 && lines[len(lines)-1] != '\n' {
		const text = "policy: %s: it has no line feed at its end; was the file cut off?"
		return nil, fmt.Errorf(text, path)
	}
	f, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("policy: %s:%w", path, err)
	}
	return f, nil
}

// Parse reads the text of a file. Parse refuses a text without a table, which would allow
// everything: the file was probably cut off. The caller puts "PATH:" before an error. So an error
// begins with "LINE:", or with a space if the line is not known.
func Parse(text []byte) (*File, error) { return parse(text, lookup) }

// For returns the policy of a user. A nil File restricts nothing.
func (f *File) For(uid uint32) Policy {
	if f == nil {
		return Policy{}
	}
	if p, ok := f.users[uid]; ok {
		return p
	}
	return f.preset
}

// Users lists the users that have a table, in the order of their numbers. names has each user's
// NAME in the file.
func (f *File) Users() (uids []uint32, names map[uint32]string) {
	return slices.Sorted(maps.Keys(f.names)), f.names
}

// Default returns the policy of [default], which holds for users without a table.
func (f *File) Default() Policy { return f.preset }

func parse(text []byte, lookup func(name string) (uint32, error)) (*File, error) {
	var tables struct {
		Default *Policy           `toml:"default"`
		User    map[string]Policy `toml:"user"`
	}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&tables); err != nil {
		return nil, located(err)
	}
	if err := checkCase(text); err != nil {
		return nil, err
	}
	if tables.Default == nil && len(tables.User) == 0 {
		return nil, errors.New(" it has no table; write [default] into it, even if " +
			"nothing is to be forbidden")
	}
	if tables.Default == nil {
		tables.Default = &Policy{}
	}
	f := &File{preset: *tables.Default, users: map[uint32]Policy{}, names: map[uint32]string{}}
	if err := checkSize(f.preset); err != nil {
		return nil, fmt.Errorf(" [default]: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(tables.User)) {
		uid, err := lookup(name)
		if err != nil {
			return nil, fmt.Errorf(" [user.%s]: %w", name, err)
		}
		if other, there := f.names[uid]; there {
			return nil, fmt.Errorf(" [user.%s] and [user.%s] are both user %d: "+
				"merge them into one table", other, name, uid)
		}
		p := f.preset.over(tables.User[name])
		if err := checkSize(p); err != nil {
			return nil, fmt.Errorf(" [user.%s]: %w", name, err)
		}
		f.users[uid], f.names[uid] = p, name
	}
	return f, nil
}

// located gives an error of the TOML library the form "LINE: KEY: why".
func located(err error) error {
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		e := &unknown.Errors[0]
		line, _ := e.Position()
		return fmt.Errorf("%d: %s is not known; there are [default] and [user.NAME], and "+
			"in them %s", line, strings.Join(e.Key(), "."),
			strings.Join([]string{KeySkipVerify, KeyMinTLS, KeyListen, KeyDestinations,
				KeyKeyFolders, KeyCAFolders}, ", "))
	case errors.As(err, &bad):
		line, _ := bad.Position()
		why := strings.TrimPrefix(bad.Error(), "toml: ")
		// After " into " the text names types of Go, which say nothing to an administrator.
		if i := strings.Index(why, " into "); i > 0 &&
			strings.HasPrefix(why, "cannot decode TOML ") {
			why = why[:i] + " here: it is of the wrong type"
		}
		if key := strings.Join(bad.Key(), "."); key != "" {
			why = key + ": " + why
		}
		return fmt.Errorf("%d: %s", line, why)
	}
	return fmt.Errorf(" %s", strings.TrimPrefix(err.Error(), "toml: "))
}

// checkCase refuses keys with capital letters. The TOML library ignores the case, and would take
// "Listen" and "listen" for the same key.
func checkCase(text []byte) error {
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		return located(err)
	}
	check := func(keys any) error {
		table, _ := keys.(map[string]any)
		for key := range table {
			if key != strings.ToLower(key) {
				return fmt.Errorf(" %s: keys are written in lower case", key)
			}
		}
		return nil
	}
	users, _ := all["user"].(map[string]any)
	errs := []error{check(all), check(all["default"])}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		errs = append(errs, check(users[name]))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkSize(p Policy) error {
	b, err := json.Marshal(p)
	if err == nil && len(b) > maxPolicy {
		err = fmt.Errorf("this policy takes %d bytes, and the limit is %d; use networks, "+
			"ranges and wildcards in place of long lists", len(b), maxPolicy)
	}
	return err
}

// lookup finds a user by number or name.
func lookup(name string) (uint32, error) {
	text := name
	if strings.Trim(name, "0123456789") != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return 0, fmt.Errorf("there is no user %q: %w", name, err)
		}
		text = u.Uid
	}
	uid, err := strconv.ParseUint(text, 10, 32)
	if err != nil || uid == 1<<32-1 { // (uid_t)-1 is no user
		return 0, fmt.Errorf("%q cannot be the number of a user", text)
	}
	return uint32(uid), nil
}
