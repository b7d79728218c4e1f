package session

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
)

// Certificates, and CAs of clients, that are renewed on disk: the option reload is auto. The rules:
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
	cert, key         fs.FileInfo       // nil: there was none
	leaf              *x509.Certificate // that holds; nil: only OpenSSL can read it
}

// refresh takes files that have been renewed. If another change is under way, it leaves them to a
// later handshake.
func (c *serverContext) refresh() {
	s := c.s
	s.mu.Lock()
	due := c.options.reload && time.Since(c.looked) >= s.reloadPause
	if due {
		c.looked = time.Now()
	}
	s.mu.Unlock()
	if !due || !c.changing.TryLock() {
		return
	}
	defer c.changing.Unlock()
	changed := map[string]source{}
	o := c.current()
	if path := o.config.CAName; path != "" {
		if now := look(s.Policy.CAFolders, path); !same(o.clientCA, now) {
			c.reloadCA(path, now)
		}
	}
	for name, old := range o.sources {
		now := source{certFile: old.certFile, keyFile: old.keyFile, leaf: old.leaf,
			cert: look(s.Policy.KeyFolders, old.certFile),
			key:  look(s.Policy.KeyFolders, old.keyFile)}
		if !same(old.cert, now.cert) || !same(old.key, now.key) {
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
			c.remember(func(o *serverOptions) { o.sources[name] = now })
			s.reloaded(now.certFile, now.keyFile, err)
		}
	}
}

// reload makes the files of some names hold, as they are there now, and tells the observer; or none
// of them. c.changing must be held.
func (c *serverContext) reload(changed map[string]source) error {
	next := c.current()
	for name, from := range changed {
		id, read, err := c.s.identity(opReload, from.certFile, from.keyFile)
		if err != nil {
			return classify(context.Background(), err, kind.File)
		}
		next.identify(name, id, read)
	}
	if err := c.renew(next); err != nil {
		return err
	}
	for name := range changed {
		from := next.sources[name]
		c.s.loaded(from)
		c.s.reloaded(from.certFile, from.keyFile, nil)
	}
	return nil
}

// reloadCA makes the file of client-ca hold as it is there now, which has changed. If it is bad,
// the old CAs stay. c.changing must be held.
func (c *serverContext) reloadCA(path string, now fs.FileInfo) {
	next := c.current()
	err := c.s.readClientCA(opReload, path, &next)
	if err == nil {
		err = c.renew(next)
	}
	if err != nil {
		c.remember(func(o *serverOptions) { o.clientCA = now })
	}
	c.s.reloaded(path, "", err)
}

// remember notes what the files were when they could not be taken.
func (c *serverContext) remember(note func(*serverOptions)) {
	next := c.current()
	note(&next)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.options = next
}

// look tells which file is at a path now; nil if none can be opened. A refusal of the policy is
// told to the audit by the read that follows a change, and not by each look.
func look(within policy.Folders, path string) fs.FileInfo {
	f, err := within.Open(path)
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

func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
