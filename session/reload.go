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

// With the option reload set to auto, a context uses certificates and client CAs that have been
// renewed on disk. The rules:
//
//   - Before a handshake begins, the context checks whether the files have changed, but at most
//     once in reloadPause. So an idle context does nothing.
//   - A file has changed if its path names another inode, or if its time or size has changed. The
//     check opens the file as the first load did, so the policy's folders and the confinement apply
//     to it, too.
//   - The context reads and checks new files before it uses them. They may be bad, for example
//     while the key is not replaced yet. Then the old certificates and CAs stay in use, and the
//     observer gets one report. The context tries the files again when they have changed again.
//   - A lack of descriptors or memory says nothing about the files. So the context tries the files
//     again after reloadPause. The observer gets at most one report while the lack lasts.

// reloadPause is the shortest time between two checks of a context's files.
const reloadPause = time.Second

// The audit events of a reload name tls.Accept, because most reloads happen in handshakes that a
// context does for Accept.
const opReload = "tls.Accept"

// A source is the files of a certificate and its key, and their state at the last check.
type source struct {
	certFile, keyFile string
	cert, key         fs.FileInfo       // nil: the file could not be opened
	leaf              *x509.Certificate // the certificate in use; nil: only OpenSSL can read it
}

// refresh checks the context's files, and loads those that have been renewed. If another goroutine
// is changing the options, refresh does nothing, and a later handshake checks the files.
func (c *serverContext) refresh() {
	if !c.reloadIsDue() || !c.changeMu.TryLock() {
		return
	}
	defer c.changeMu.Unlock()
	c.lack = false
	defer func() { c.toldOfLack = c.toldOfLack && c.lack }()
	o := c.copyOptions()
	if path := o.config.CAName; path != "" {
		now, err := stat(c.s.Policy.CAFolders, path)
		if err != nil {
			c.lack = true
		} else if !sameFile(o.clientCA, now) {
			c.reloadCA(path, now)
		}
	}
	c.reloadEach(c.changedSources(o))
}

// reloadIsDue says whether the files must be checked now. If so, it notes the time of the check.
func (c *serverContext) reloadIsDue() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	due := c.options.reload && time.Since(c.lastLook) >= c.s.reloadPause
	if due {
		c.lastLook = time.Now()
	}
	return due
}

// changedSources returns the sources whose files have changed, by name, with the files' present
// state. c.changeMu must be held.
func (c *serverContext) changedSources(o serverOptions) map[string]source {
	folders := c.s.Policy.KeyFolders
	changed := map[string]source{}
	for name, old := range o.sources {
		now := source{certFile: old.certFile, keyFile: old.keyFile, leaf: old.leaf}
		var certErr, keyErr error
		now.cert, certErr = stat(folders, old.certFile)
		now.key, keyErr = stat(folders, old.keyFile)
		if certErr != nil || keyErr != nil {
			c.lack = true
		} else if !sameFile(old.cert, now.cert) || !sameFile(old.key, now.key) {
			changed[name] = now
		}
	}
	return changed
}

// reloadEach loads the sources that have changed, and reports failures to the observer.
// c.changeMu must be held.
func (c *serverContext) reloadEach(changed map[string]source) {
	// Each change loads the certificates of all names into a new engine context. So first try
	// to load all changed files in one change. If one of them is bad, load the files of each
	// name alone.
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
			c.s.reportReload(now.certFile, now.keyFile, err)
		}
	}
}

// The method failed handles the error of a reload, and says whether to report it to the observer.
// After a lack of descriptors or memory, the files are tried again. After any other error, the
// method calls record(), which stores the state of the files, so that they are not tried again.
// c.changeMu must be held.
func (c *serverContext) failed(err error, record func(*serverOptions)) (tell bool) {
	if !isLack(err) {
		c.remember(record)
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

// reload reads the files of the given names, and uses them from now on: all of them, or none. It
// reports a success to the observer, and returns a failure. c.changeMu must be held.
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

// reloadCA reads the file of the option client-ca again, after the file has changed. If the file is
// bad, the old CAs stay in use. found is the file's new state. c.changeMu must be held.
func (c *serverContext) reloadCA(path string, found fs.FileInfo) {
	next := c.copyOptions()
	err := c.s.readClientCA(opReload, path, &next)
	if err == nil {
		err = c.apply(next)
	}
	if err == nil || c.failed(err, func(o *serverOptions) { o.clientCA = found }) {
		c.s.reportReload(path, "", err)
	}
}

// remember changes the options: it calls record(), which stores the state of files that could not
// be used. c.changeMu must be held.
func (c *serverContext) remember(record func(*serverOptions)) {
	next := c.copyOptions()
	record(&next)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.options = next
}

// stat returns the state of the file at a path, or nil if it cannot be opened. An error means a
// lack of descriptors or memory. stat itself writes no audit event for a file that the policy
// refuses. But if the file could be opened before, nil counts as a change. Then the caller tries to
// read the file, and this writes the event.
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
