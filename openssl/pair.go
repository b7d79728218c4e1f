package openssl

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// libssl and libcrypto are one library in two files: libssl uses structures of libcrypto that no
// header describes. If libssl gets the libcrypto of another build, the load may succeed, and libssl
// may then corrupt memory. The dynamic linker may choose such a libcrypto if libssl was named by
// its path and has no RUNPATH. If LD_PRELOAD or an earlier dlopen has loaded a libcrypto of the
// same name, the linker takes this libcrypto. So checkFiles compares the two files before they are
// used. Without /proc or ELF files it cannot compare them.

// checkFiles returns an error if libssl has got another build's libcrypto. It calls no function of
// the two libraries.
func (l *Library) checkFiles() error {
	ssl, crypto := mappedFile(l.sym.sslNew), l.CryptoPath()
	if ssl == "" || crypto == "" {
		l.pair = "not compared: this system does not tell where they were loaded from"
		return nil
	}
	if ssl == crypto {
		l.pair = "both are in one file"
		return nil
	}
	f, err := openImage(ssl)
	if err != nil {
		l.pair = "not compared: " + err.Error()
		return nil
	}
	defer f.close()
	var why error
	if l.pair, why = comparePair(f, l.version); why != nil {
		return fmt.Errorf(
			"%s %w, but its libcrypto, %s, is %s: the two must be of one build", ssl,
			why, crypto, l.version)
	}
	for _, name := range f.dynamic(elf.DT_NEEDED) {
		own := filepath.Join(filepath.Dir(ssl), name)
		if strings.HasPrefix(name, "libcrypto") && exists(own) &&
			home(own) != home(crypto) {
			return fmt.Errorf("%s has got a foreign libcrypto, %s (%s), and not its "+
				"own, %s: set LD_LIBRARY_PATH=%s, and look at LD_PRELOAD",
				ssl, crypto, l.version, own, filepath.Dir(ssl))
		}
	}
	return nil
}

// comparePair compares the version in a libssl with the version of its libcrypto. It returns a text
// for people that describes the result, or an error if the two do not fit. The error's text has no
// subject: the caller must write the path of libssl before the text.
func comparePair(ssl *image, version string) (finding string, err error) {
	for _, name := range ssl.dynamic(elf.DT_SONAME) {
		if major, known := sonames[name]; known &&
			!strings.HasPrefix(version, "OpenSSL "+major) {
			return "", fmt.Errorf("(%s) is a libssl of OpenSSL %sx", name, major)
		}
	}
	// Up to 1.1.1 libssl contains the text of its version.
	if own := versionText(ssl.section(".rodata")); own != "" {
		if own != version {
			return "", fmt.Errorf("is the libssl of %s", own)
		}
		return "both are " + version, nil
	}
	newest := newestSymbols(ssl)
	release, ok := parseRelease(version)
	switch {
	case !ok || newest == (release3{}):
		return "not compared: libssl has no symbol versions", nil
	case slices.Contains(addedSymbols, release) && newest != release,
		slices.Compare(newest[:], release[:]) > 0:
		return "", fmt.Errorf("is a libssl of OpenSSL %s, as its newest symbols show",
			newest)
	}
	return fmt.Sprintf("libssl's newest symbols are of OpenSSL %s, as they must be", newest),
		nil
}

// sonames has the names that OpenSSL gives libssl on Linux, each with the major version and a dot.
// Other systems number libssl in their own ways, so their names are not here.
var sonames = map[string]string{"libssl.so.1.1": "1.", "libssl.so.3": "3.", "libssl.so.4": "4."}

// versionText finds a text such as "OpenSSL 1.1.1w 11 Sep 2023". A zero byte is before it, and
// another behind it.
func versionText(data []byte) string {
	begin := []byte("\x00OpenSSL ")
	for {
		at := bytes.Index(data, begin)
		if at < 0 {
			return ""
		}
		data = data[at+1:]
		text, _, ended := bytes.Cut(data, []byte{0})
		number := text[len(begin)-1:]
		if _, ok := leadingRelease(string(number[:min(len(number), 32)])); ok && ended {
			return string(text)
		}
	}
}

// A release3 is a release of OpenSSL. Since 3.0 the third number counts repairs, and leadingRelease
// sets it to 0.
type release3 [3]int

func (r release3) String() string {
	if r[0] < 3 {
		return fmt.Sprintf("%d.%d.%d", r[0], r[1], r[2])
	}
	return fmt.Sprintf("%d.%d", r[0], r[1])
}

// addedSymbols are the releases that added symbols which libssl exports or imports. A libssl of
// such a release must have symbols of this release, and none of a later one. Other releases, such
// as 3.1, added no symbols. Their libssl is refused only if it has symbols of a later release.
var addedSymbols = []release3{{1, 1, 1}, {3, 0}, {3, 2}, {3, 3}, {3, 4}, {3, 5}, {3, 6}, {4, 0}}

// newestSymbols is the release of the newest symbols that a library exports or imports. OpenSSL
// gives new symbols a version with the name of their release: OPENSSL_3.5.0, OPENSSL_1_1_1a. The
// names of these versions are in .dynstr, among the names of the symbols.
func newestSymbols(f *image) (newest release3) {
	for name := range bytes.SplitSeq(f.section(".dynstr"), []byte{0}) {
		number, ok := bytes.CutPrefix(name, []byte("OPENSSL_"))
		if !ok {
			continue
		}
		r, ok := leadingRelease(string(number))
		if ok && slices.Compare(r[:], newest[:]) > 0 {
			newest = r
		}
	}
	return newest
}

// parseRelease finds the release in the text of a version.
func parseRelease(text string) (release3, bool) {
	return leadingRelease(strings.TrimPrefix(text, "OpenSSL "))
}

// leadingRelease reads the release that a text begins with, such as 3.0.19 or 1_1_1a.
func leadingRelease(text string) (r release3, ok bool) {
	for i := range r {
		end := strings.IndexFunc(text, func(c rune) bool { return c < '0' || c > '9' })
		if end < 0 {
			end = len(text)
		}
		n, err := strconv.Atoi(text[:end])
		if err != nil {
			return release3{}, false
		}
		r[i], text = n, text[end:]
		if i < len(r)-1 {
			if text == "" || text[0] != '.' && text[0] != '_' {
				return release3{}, false
			}
			text = text[1:]
		}
	}
	if r[0] >= 3 {
		r[2] = 0
	}
	return r, true
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// home is the folder of a library, with symbolic links resolved. A variant of the library for newer
// processors is in a subfolder glibc-hwcaps/NAME of this folder (ld.so(8)). The variant is of the
// same build, so its home is the library's folder, too.
func home(file string) string {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	dir, _, _ := strings.Cut(filepath.Dir(file), "/glibc-hwcaps/")
	return dir
}

// checkQueue returns an error if the errors of libssl are not in the error queue that this package
// reads. In this case libssl uses another libcrypto than the one in which the symbols were found.
// LD_PRELOAD can cause that.
func (l *Library) checkQueue() error {
	// Without a method, SSL_CTX_new(3) must fail, and queue an error.
	q := l.exclusive(func() { call(l.sym.ctxNew, 0) })
	if q.has(reasonNullMethod) {
		return nil
	}
	return fmt.Errorf("%s: libssl does not report its errors to %s: it uses another "+
		"libcrypto; look at LD_PRELOAD", l.version, l.CryptoPath())
}

// CryptoPath is the file of the libcrypto that the library uses, with symbolic links resolved, or
// "" if the system does not tell. Load has checked that this libcrypto belongs to the libssl.
func (l *Library) CryptoPath() string { return mappedFile(l.sym.opensslVersionNum) }

// Pair says for people what is known about the builds of libssl and libcrypto. Load has refused
// pairs that are known to be of different builds.
func (l *Library) Pair() string { return l.pair }
