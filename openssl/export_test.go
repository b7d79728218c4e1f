package openssl

import "strings"

// What the tests need to see of the inside.

var (
	SearchList   = searchList
	CheckVersion = checkVersion
	LoadFirst    = loadFirst
	SplitCode    = splitCode
	Home         = home
)

// FindTrust is findTrust with libcrypto's answers replaced.
func FindTrust(file, dir string, fallbackFiles []string, fallbackDir string) TrustStore {
	t := findTrust(locations{file, dir, "SSL_CERT_FILE", "SSL_CERT_DIR"}, fallbackFiles, fallbackDir)
	t.store.Certificates = countFile(t.store.File) + countDirs(t.store.Dir)
	return t.store
}

// Verdicts is the number of connections whose verification is remembered.
func Verdicts(l *Library) (n int) {
	l.verdicts.Range(func(any, any) bool { n++; return true })
	return n
}

// SymbolNames are the names of the functions that the package looks up, except for those of the version.
func SymbolNames() (names []string) {
	var s symbols
	for _, sym := range s.table() {
		names = append(names, strings.Fields(sym.names)...)
	}
	return names
}
