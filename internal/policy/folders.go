package policy

import "errors"

// Folders are those that files may be in, at any depth. Nil is every folder.
//
// # The rules
//
//   - What counts is where a file really is. Neither a symbolic link, nor "..", nor a renaming in between leads around the rule.
//   - The kernel holds the rule: the file is opened below the folder, with openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS.
//   - The links of /proc, such as /proc/PID/root, are not followed: in another mount namespace a folder's path says nothing.
//   - Nothing outside of the folders is opened, not even to be looked at.
//   - A kernel without openat2(2), before Linux 5.6 or of another system, opens no file where folders are given.
//   - A hard link is a file of the folder that it is in: who may write into one of the folders, decides what is in it.
type Folders []Folder

// ErrOutside is the error of a file that is in none of the folders.
var ErrOutside = errors.New("it is in none of the allowed folders")
