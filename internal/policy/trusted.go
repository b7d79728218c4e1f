package policy

// ReadTrusted reads a file that only an administrator can have written: a regular file that belongs
// to root or to this process's user, and that nobody else can write to.
func ReadTrusted(path string) ([]byte, error) { return read(path) }
