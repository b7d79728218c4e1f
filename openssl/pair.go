package openssl

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// libssl and libcrypto are one library in two files: libssl reaches into structures of libcrypto that no
// header describes. With the libcrypto of another build it may load all the same, and then
// corrupt memory. The dynamic linker brings that about where it does not look beside libssl first: when
// libssl was named by its path and has no RUNPATH, or when LD_PRELOAD or an earlier dlopen has
// brought a libcrypto of the same name. So the pair is looked at before it is used. What the system
// does not tell, because it has no /proc or no ELF, is not judged.

// checkFiles refuses a libssl that has got another's libcrypto. It calls no function of either.
func (l *Library) checkFiles() error {
	ssl, crypto := mappedFile(l.sym.sslNew), l.CryptoPath()
	if ssl == "" || crypto == "" || ssl == crypto { // not told, or both are in one file
		return nil
	}
	f, err := elf.Open(ssl)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.DynString(elf.DT_SONAME)
	for _, name := range names {
		if major := sonames[name]; major != 0 && major != l.major {
			return fmt.Errorf("%s (%s) is a libssl of OpenSSL %d.x, but its libcrypto, %s, is %s: the two must be of one build",
				ssl, name, major, crypto, l.version)
		}
	}
	needed, _ := f.DynString(elf.DT_NEEDED)
	for _, name := range needed {
		own := filepath.Join(filepath.Dir(ssl), name)
		if strings.HasPrefix(name, "libcrypto") && exists(own) && home(own) != home(crypto) {
			return fmt.Errorf("%s has got a foreign libcrypto, %s (%s), and not its own, %s: set LD_LIBRARY_PATH=%s, and look at LD_PRELOAD",
				ssl, crypto, l.version, own, filepath.Dir(ssl))
		}
	}
	return nil
}

// sonames are the names whose major version is known. Other systems have numbers of their own.
var sonames = map[string]int{"libssl.so.1.1": 1, "libssl.so.3": 3, "libssl.so.4": 4}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// home is the folder of a library, with symbolic links resolved. Its variants for better processors
// lie in folders below and are of the same build (ld.so(8), glibc-hwcaps).
func home(file string) string {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	dir, _, _ := strings.Cut(filepath.Dir(file), "/glibc-hwcaps/")
	return dir
}

// checkQueue refuses a libssl whose errors do not arrive where this package looks for them: it then
// uses another libcrypto than the one that its symbols were found in, which LD_PRELOAD can bring about.
func (l *Library) checkQueue() error {
	q := l.exclusive(func() { call(l.sym.ctxNew, 0) })
	if q.has(reasonNullMethod) {
		return nil
	}
	return fmt.Errorf("%s: libssl does not report its errors to %s: it uses another libcrypto; look at LD_PRELOAD", l.version, l.CryptoPath())
}

// CryptoPath is the file of the libcrypto that the library uses, with symbolic links resolved, or
// "" where the system does not tell. Load has seen to it that the two belong together.
func (l *Library) CryptoPath() string { return mappedFile(l.sym.opensslVersionNum) }
