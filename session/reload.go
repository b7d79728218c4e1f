package session

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
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
//   - A lack of descriptors or memory says nothing about the files. They are tried again after
//     reloadPause. The observer is told once while the lack lasts.

// reloadPause is the shortest time between two looks of a context.
const reloadPause = time.Second

const opReload = "tls.Accept" // the method in errors and audit events: its handshake looks

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
	c.lack = false
	defer func() { c.toldOfLack = c.toldOfLack && c.lack }()
	o := c.copyOptions()
	if path := o.config.CAName; path != "" {
		now, err := stat(s.Policy.CAFolders, path)
		if err != nil {
			c.lack = true
		} else if !sameFile(o.clientCA, now) {
			c.reloadCA(path, now)
		}
	}
	changed := map[string]source{}
	for name, old := range o.sources {
		now := source{certFile: old.certFile, keyFile: old.keyFile, leaf: old.leaf}
		var certErr, keyErr error
		now.cert, certErr = stat(s.Policy.KeyFolders, old.certFile)
		now.key, keyErr = stat(s.Policy.KeyFolders, old.keyFile)
		if certErr != nil || keyErr != nil {
			c.lack = true
		} else if !sameFile(old.cert, now.cert) || !sameFile(old.key, now.key) {
			changed[name] = now
		}
	}
	// All names at once, because each change makes the certificates of all names anew.
	if len(changed) > 1 && c.reload(changed) == nil {
		return
	}
	for name, now := range changed {
		err := c.reload(map[string]source{name: now})
		if err == nil {
			continue
		}
		if c.failed(err, func(o *serverOptions) { o.sources[name] = now }) {
			if told := (*Error)(nil); !errors.As(err, &told) {
				err = unusable(now.certFile, now.keyFile, err)
			}
			s.reportReload(now.certFile, now.keyFile, err)
		}
	}
}

// failed notes that files could not be taken, and says whether to tell the observer. note records
// the state of the files, so that they are not tried again. c.changeMu must be held.
func (c *serverContext) failed(err error, note func(*serverOptions)) (tell bool) {
	if !isLack(err) {
		c.remember(note)
		return true
	}
	tell = !c.toldOfLack
	c.lack, c.toldOfLack = true, true
	return tell
}

// isLack says whether an operation has failed because the process or the machine lacks descriptors
// or memory.
func isLack(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return slices.Contains([]string{"EMFILE", "ENFILE", "ENOMEM"}, e.Errno)
	}
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOMEM)
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
	if err == nil || c.failed(err, func(o *serverOptions) { o.clientCA = now }) {
		c.s.reportReload(path, "", err)
	}
}

// remember records the state of files that could not be taken.
func (c *serverContext) remember(note func(*serverOptions)) {
	next := c.copyOptions()
	note(&next)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.options = next
}

// stat returns the file that is at a path now, or nil if none can be opened. An error means a lack
// of descriptors or memory. stat does not tell the audit that the policy refuses a file. The read
// after a change does so.
func stat(within policy.Folders, path string) (fs.FileInfo, error) {
	f, err := within.Open(path)
	if isLack(err) {
		return nil, err
	}
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil
	}
	return st, nil
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
