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

// Certificates, and CAs of clients, that are renewed on disk, with the option reload set to auto.
// The rules:
//
//   - A handshake that is about to begin looks whether the files have changed. A context looks at
//     most once in reloadPause. So an idle context does nothing.
//   - A file has changed if its path leads to another inode, or if its time or size has changed. It
//     is opened as at first, so the policy's folders and the confinement hold.
//   - New files are read and checked first. They may be bad, for example while the key is not
//     replaced yet. Then the old ones stay, and the observer is told once. The files are tried
//     again when they have changed again.

// reloadPause is the shortest time between two looks of a context.
const reloadPause = time.Second

const opReload = "tls.Accept" // the call whose handshake looks

// A source is the files of an identity, and their state at the last look.
type source struct {
	certFile, keyFile string
	cert, key         fs.FileInfo       // nil: the file did not exist
	leaf              *x509.Certificate // in use; nil: only OpenSSL can read it
}

// refresh takes files that have been renewed. If the options are being changed, it leaves the files
// to a later handshake.
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
	o := c.copyOptions()
	if path := o.config.CAName; path != "" {
		if now := stat(s.Policy.CAFolders, path); !sameFile(o.clientCA, now) {
			c.reloadCA(path, now)
		}
	}
	for name, old := range o.sources {
		now := source{certFile: old.certFile, keyFile: old.keyFile, leaf: old.leaf,
			cert: stat(s.Policy.KeyFolders, old.certFile),
			key:  stat(s.Policy.KeyFolders, old.keyFile)}
		if !sameFile(old.cert, now.cert) || !sameFile(old.key, now.key) {
			changed[name] = now
		}
	}
	// All names at once, because each change makes the certificates of all names anew.
	if len(changed) > 1 && c.reload(changed) == nil {
		return
	}
	for name, now := range changed {
		if err := c.reload(map[string]source{name: now}); err != nil {
			if told := (*Error)(nil); !errors.As(err, &told) {
				err = unusable(now.certFile, now.keyFile, err)
			}
			c.remember(func(o *serverOptions) { o.sources[name] = now })
			s.reportReload(now.certFile, now.keyFile, err)
		}
	}
}

// reload reads the files of the given names, and makes them hold: all of them, or none. It tells
// the observer. c.changeMu must be held.
func (c *serverContext) reload(changed map[string]source) error {
	next := c.copyOptions()
	for name, from := range changed {
		id, read, err := c.s.identity(opReload, from.certFile, from.keyFile)
		if err != nil {
			return classify(context.Background(), err, kind.File)
		}
		next.setIdentity(name, id, read)
	}
	if err := c.apply(next); err != nil {
		return err
	}
	for name := range changed {
		from := next.sources[name]
		c.s.reportCertificate(from)
		c.s.reportReload(from.certFile, from.keyFile, nil)
	}
	return nil
}

// reloadCA makes the context use the file of client-ca, which has changed, as it is now. If the
// file is bad, the old CAs stay. c.changeMu must be held.
func (c *serverContext) reloadCA(path string, now fs.FileInfo) {
	next := c.copyOptions()
	err := c.s.readClientCA(opReload, path, &next)
	if err == nil {
		err = c.apply(next)
	}
	if err != nil {
		c.remember(func(o *serverOptions) { o.clientCA = now })
	}
	c.s.reportReload(path, "", err)
}

// remember records the state of files that could not be taken.
func (c *serverContext) remember(note func(*serverOptions)) {
	next := c.copyOptions()
	note(&next)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.options = next
}

// stat returns the file that is at a path now, or nil if none can be opened. It does not report a
// refusal of the policy to the audit. The read after a change reports it.
func stat(within policy.Folders, path string) fs.FileInfo {
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

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
