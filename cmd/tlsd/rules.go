package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"

	"tlsd/internal/policy"
)

// rules has the content that the administrator's policy file had when it was last read without an
// error. Without a file, everything is allowed.
type rules struct {
	path    string // "": no file; reload() may change the path
	current atomic.Pointer[policy.File]

	reloads, failures atomic.Uint64 // calls of reload that succeeded, and that failed
}

func loadRules(path string) (*rules, error) {
	r := &rules{}
	if path == "" {
		return r, nil
	}
	var err error
	if r.path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("--policy %s: %w", path, err)
	}
	f, err := policy.Load(r.path)
	r.current.Store(f)
	return r, err
}

// For returns the policy for a new session of a user.
func (r *rules) For(uid uint32) policy.Policy { return r.current.Load().For(uid) }

// reload reads the policy file at the path, which may differ from the earlier path. After an error
// the earlier policy stays in force. Only one goroutine may call reload.
func (r *rules) reload(path string, log *zap.Logger) {
	if path == "" {
		r.reloads.Add(1)
		if r.current.Swap(nil) != nil {
			log.Warn("there is no policy file any more; new sessions may do everything")
		}
		r.path = ""
		return
	}
	path, err := filepath.Abs(path)
	if err != nil {
		r.failures.Add(1)
		log.Error("the policy file has an error; the earlier policy stays in force",
			zap.Error(err))
		return
	}
	r.path = path
	f, err := policy.Load(r.path)
	if err != nil {
		r.failures.Add(1)
		log.Error("the policy file has an error; the earlier policy stays in force",
			zap.Error(err))
		return
	}
	r.current.Store(f)
	r.reloads.Add(1)
	log.Info("policy file read again, for new sessions", zap.String("path", r.path))
}

// The method print writes the policy of each user.
func (r *rules) print(w io.Writer) {
	f := r.current.Load()
	uids, names := f.Users()
	for _, uid := range uids {
		printPolicy(w, fmt.Sprintf("user %s (%d)", names[uid], uid), f.For(uid))
	}
	printPolicy(w, "all others", f.Default())
}

func printPolicy(w io.Writer, who string, p policy.Policy) {
	fmt.Fprintf(w, "%s:\n", who)
	keys := p.Keys()
	if len(keys) == 0 {
		fmt.Fprintln(w, "  everything is allowed")
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		value := fmt.Sprint(keys[key])
		if list, ok := keys[key].([]string); ok {
			if value = strings.Join(list, ", "); value == "" {
				value = "none"
			}
		}
		fmt.Fprintf(w, "  %s: %s\n", key, value)
	}
}
