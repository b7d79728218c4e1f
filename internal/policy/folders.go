package policy

import "errors"

// Folders are the folders that a file may be in, at any depth. Nil allows every folder.
//
// # The rules
//
//   - The file's real path must be in one of the folders. A symbolic link, "..", or a rename during
//     the open cannot evade this rule.
//   - The kernel enforces the rule: the file is opened below the folder, with openat2(2),
//     RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS.
//   - The links of /proc, such as /proc/PID/root, are not followed. They can lead to another mount
//     namespace, where the path of a folder leads to another folder.
//   - To find a file's real path, the file is first opened with O_PATH, even outside the folders.
//     O_PATH gives no access to the content.
//   - Linux before 5.6 and other systems have no openat2(2). On these systems Open fails if the
//     policy has folders.
//   - A hard link counts as a file of the folder in which it is. So a user who may write into an
//     allowed folder can add a file to it by a hard link.
type Folders []Folder

// ErrOutside is the error of a file that is in none of the folders.
var ErrOutside = errors.New("it is in none of the allowed folders")
