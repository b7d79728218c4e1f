package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"tlsd/internal/safefile"
)

// The configuration file is TOML without tables. Its keys are the names of the flags that have an
// environment variable, except config. A value is a string or a whole number. A setting that takes
// several values (see isList) may also have an array of these.

// systemConfig is the file that root's tlsd reads by default, if the file exists. It is for the
// system's daemon only, so another user's tlsd reads no file by default.
const systemConfig = "/etc/tlsd/tlsd.toml"

// maxConfig limits the size of the file, in bytes.
const maxConfig = 1 << 20

// With --config=none tlsd reads no configuration file. With --admin-socket=none it makes no admin
// socket.
const none = "none"

// presetConfig is the default of --config.
func presetConfig() string {
	if os.Geteuid() != 0 {
		return none
	}
	if _, err := os.Lstat(systemConfig); errors.Is(err, os.ErrNotExist) {
		return none
	}
	return systemConfig
}

// A fileValue is the value of one key in the file.
type fileValue struct {
	text string // in the form that the flag takes
	list bool   // the value is an array
	line int    // the line of the key
}

// readConfig reads the file at the path. The file may have the keys of fileKeys(table).
func readConfig(path string, table []flagInfo) (map[string]fileValue, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	text, err := safefile.Read(path, maxConfig, uint32(os.Geteuid()))
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	values, err := parseConfig(text, table)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %s:%w", path, err)
	}
	return values, nil
}

// parseConfig reads the text of a file. An error begins with the line's number and a colon.
func parseConfig(text []byte, table []flagInfo) (map[string]fileValue, error) {
	var found map[string]any
	if err := toml.NewDecoder(bytes.NewReader(text)).Decode(&found); err != nil {
		line := 1
		var bad *toml.DecodeError
		if errors.As(err, &bad) {
			line, _ = bad.Position()
		}
		return nil, fmt.Errorf("%d: %s", line, strings.TrimPrefix(err.Error(), "toml: "))
	}
	values := map[string]fileValue{}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		line := lineOf(text, key)
		f, ok := settingNamed(table, key)
		if !ok {
			return nil, fmt.Errorf("%d: %s is not known%s", line, key,
				suggest(key, fileKeys(table)))
		}
		v, err := convert(found[key])
		if err == nil && v.list && !f.isList() {
			err = errors.New("want one value, not a list")
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %s: %w", line, key, err)
		}
		v.line = line
		values[key] = v
	}
	return values, nil
}

// convert gives a TOML value the form that a flag takes.
func convert(value any) (fileValue, error) {
	switch v := value.(type) {
	case string:
		return fileValue{text: v}, nil
	case int64:
		return fileValue{text: strconv.FormatInt(v, 10)}, nil
	case []any:
		var parts []string
		for _, element := range v {
			part, err := convert(element)
			if err != nil || part.list {
				err = errors.New("want a list of strings or whole numbers")
				return fileValue{}, err
			}
			parts = append(parts, part.text)
		}
		return fileValue{text: strings.Join(parts, ","), list: true}, nil
	}
	return fileValue{}, errors.New(`want a string in quotes, such as "30s", or a whole number`)
}

// settingNamed finds the setting of a key of the file.
func settingNamed(table []flagInfo, key string) (flagInfo, bool) {
	i := slices.IndexFunc(table, func(f flagInfo) bool { return f.name == key && f.hasKey() })
	if i < 0 {
		return flagInfo{}, false
	}
	return table[i], true
}

// fileKeys lists the keys that the file can have.
func fileKeys(table []flagInfo) []string {
	var keys []string
	for _, f := range table {
		if f.hasKey() {
			keys = append(keys, f.name)
		}
	}
	return keys
}

// hasKey says whether the file can set the flag.
func (f flagInfo) hasKey() bool { return f.hasVariable() && f.name != "config" }

// isList says whether the flag takes several values.
func (f flagInfo) isList() bool {
	switch f.value.(type) {
	case *ids, *paths:
		return true
	}
	return false
}

// lineOf is the line of a key in the file, 1 if it is not found.
func lineOf(text []byte, key string) int {
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		rest := strings.TrimPrefix(strings.TrimLeft(line, " \t"), "[")
		rest, ok := strings.CutPrefix(strings.TrimLeft(rest, `"'`), key)
		rest = strings.TrimLeft(strings.TrimLeft(rest, `"'`), " \t")
		if ok && rest != "" && strings.Contains("=].", rest[:1]) {
			return number
		}
	}
	return 1
}
