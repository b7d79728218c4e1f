package openssl

import "strings"

// What the tests need to see of the inside.

var (
	SearchList   = searchList
	CheckVersion = checkVersion
	LoadFirst    = loadFirst
	SplitCode    = splitCode
	Home         = home
	ComparePair  = comparePair
)

// FindTrust is findTrust with libcrypto's answers replaced.
func FindTrust(file, dir string, fallbackFiles []string, fallbackDir string) TrustStore {
	t := findTrust(locations{file, dir, "SSL_CERT_FILE", "SSL_CERT_DIR"}, fallbackFiles, fallbackDir)
	t.store.count()
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

// CompiledIn are the file and the directory that libcrypto was built with.
func CompiledIn(l *Library) (file, dir string) {
	loc := l.locations()
	return loc.file, loc.dir
}
