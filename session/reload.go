package session

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// Certificates that are renewed on disk: the option reload is auto. The rules:
//
//   - A handshake that is about to begin looks whether the files are others, at most once in
//     reloadPause for each context. So an idle context does nothing.
//   - A file is another one if the path leads to another inode, or its time or size has changed. It
//     is opened as at first, so the policy's folders and the confinement hold.
//   - New files are read and checked first. If they are bad, such as a key that is not replaced
//     yet, the old ones stay, and the observer is told once. They are tried again when they have
//     changed again.

// reloadPause is how long a context does not look again.
const reloadPause = time.Second

const opReload = "tls.Accept" // whose handshake looks

// A source is where an identity comes from: the files, and what they were when they were last
// looked at.
type source struct {
	certFile, keyFile string
	cert, key         fs.FileInfo // nil: there was none
}

// refresh takes files that have been renewed. If another change is under way, it leaves them to a
// later handshake.
func (c *serverContext) refresh() {
	s := c.s
	s.mu.Lock()
	due := c.options.reload && time.Since(c.lastLook) >= s.reloadPause
	if due {
		c.lastLook = time.Now()
	}
	s.mu.Unlock()
	if !due || !c.changeMu.TryLock() {
		return
	}
	defer c.changeMu.Unlock()
	changed := map[string]source{}
	for name, old := range c.copyOptions().sources {
		now := source{certFile: old.certFile, keyFile: old.keyFile, cert: s.stat(old.certFile), key: s.stat(old.keyFile)}
		if !sameFile(old.cert, now.cert) || !sameFile(old.key, now.key) {
			changed[name] = now
		}
	}
	// All at once, because each change makes the certificates of all names anew.
	if len(changed) > 1 && c.reload(changed) == nil {
		return
	}
	for name, now := range changed {
		if err := c.reload(map[string]source{name: now}); err != nil {
			if told := (*Error)(nil); !errors.As(err, &told) {
				err = unusable(now.certFile, now.keyFile, err)
			}
			c.rememberSource(name, now)
			if s.Observer != nil {
				s.Observer.Reloaded(now.certFile, now.keyFile, err)
			}
		}
	}
}

// reload makes the files of some names hold, as they are there now, and tells the observer; or none
// of them. c.changing must be held.
func (c *serverContext) reload(changed map[string]source) error {
	next := c.copyOptions()
	taken := map[string]openssl.Identity{}
	for name, from := range changed {
		id, read, err := c.s.identity(opReload, from.certFile, from.keyFile)
		if err != nil {
			return classify(context.Background(), err, kind.File)
		}
		next.setIdentity(name, id, read)
		taken[name] = id
	}
	if err := c.apply(next); err != nil {
		return err
	}
	for name, id := range taken {
		c.s.reportCertificate(id, next.sources[name])
		if c.s.Observer != nil {
			c.s.Observer.Reloaded(next.sources[name].certFile, next.sources[name].keyFile, nil)
		}
	}
	return nil
}

// remember notes what the files were when they could not be taken.
func (c *serverContext) rememberSource(name string, seen source) {
	next := c.copyOptions()
	next.sources[name] = seen
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.options = next
}

// look tells which file is at a path now; nil if none can be opened. A refusal of the policy is
// told to the audit by the read that follows a change, and not by each look.
func (s *Session) stat(path string) fs.FileInfo {
	f, err := s.Policy.KeyFolders.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	return st
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
