package openssl

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"
)

// This file divides PEM (RFC 7468) into its blocks, and passes OpenSSL one block at a time. So an
// error can name the bad block, and OpenSSL sees only blocks of the wanted kind. In a whole file
// OpenSSL might skip a block that it does not understand, or ask for the password of an encrypted
// key. OpenSSL alone decides about the content of a block.

// MaxPEM is the largest size of a file, in bytes: 32 MiB. A usual CA bundle has 0.2 MiB.
const MaxPEM = 32 << 20

// MaxCAs limits how many different certificates a CA bundle may have. A usual bundle has 150.
// OpenSSL before 4.0 sorts its store after each addition, so the time grows with the square of the
// number: 1,000 certificates take 0.2 s, 5,000 take 2 s, and 16,000 take 24 s.
const MaxCAs = 5000

// A pemBlock is one block of a file, from BEGIN to END.
type pemBlock struct {
	number, line int    // the block's number, and the number of its BEGIN line; from 1
	label        string // "CERTIFICATE"
	text         []byte // with the lines BEGIN and END
	encrypted    bool
}

func (b *pemBlock) isCert() bool {
	return b.label == "CERTIFICATE" || b.label == "X509 CERTIFICATE" ||
		b.label == "TRUSTED CERTIFICATE"
}

func (b *pemBlock) isKey() bool { return strings.HasSuffix(b.label, "PRIVATE KEY") }

// fault is an error about this block.
func (b *pemBlock) fault(what, reason string, q queue) *PEMError {
	return &PEMError{What: what, Block: b.number, Line: b.line, Reason: reason,
		Queue: q.strings()}
}

// splitPEM finds the blocks of a file. It ignores the text around them. Errors get the parameter
// "what" in their field What.
func splitPEM(what string, data []byte) ([]pemBlock, error) {
	data, reason := pemText(data)
	if reason != "" {
		return nil, &PEMError{What: what, Reason: reason}
	}
	var blocks []pemBlock
	var open *pemBlock
	start, pos, line := 0, 0, 0
	for raw := range bytes.Lines(data) {
		before := pos
		pos += len(raw)
		line++
		text := string(bytes.TrimRight(raw, " \t\r\n"))
		if label, ok := cutMarker(text, "-----BEGIN "); ok {
			if open != nil {
				return nil, open.fault(what, "has no END line", nil)
			}
			open = &pemBlock{number: len(blocks) + 1, line: line, label: label,
				encrypted: label == "ENCRYPTED PRIVATE KEY"}
			start = before
			continue
		}
		if open == nil {
			continue
		}
		if strings.HasPrefix(text, "Proc-Type:") && strings.Contains(text, "ENCRYPTED") {
			open.encrypted = true
		}
		if label, ok := cutMarker(text, "-----END "); ok {
			if label != open.label {
				return nil, open.fault(what, fmt.Sprintf("begins as %q and "+
					"ends as %q", open.label, label), nil)
			}
			open.text = data[start:pos]
			blocks = append(blocks, *open)
			open = nil
		}
	}
	if open != nil {
		return nil, open.fault(what, "has no END line: the file is cut short", nil)
	}
	if len(blocks) == 0 {
		return nil, &PEMError{What: what, Reason: notPEM(data)}
	}
	return blocks, nil
}

// pemText returns the text of a file, without a byte order mark. If the file cannot have lines of
// PEM, pemText returns the reason.
func pemText(data []byte) (text []byte, reason string) {
	if len(data) > MaxPEM {
		return nil, fmt.Sprintf("has %d bytes: %d is the most", len(data), MaxPEM)
	}
	text = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // some editors write this mark
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, "is empty"
	}
	lines := bytes.IndexByte(text, '\n') >= 0
	if !lines && bytes.IndexByte(bytes.TrimRight(text, "\r"), '\r') >= 0 &&
		bytes.Contains(text, []byte("-----BEGIN ")) {
		return nil, "has lines that end with a carriage return alone: they must end with " +
			"a line feed"
	}
	return text, ""
}

// notPEM says why a text without any block has none.
func notPEM(text []byte) string {
	if bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
		return "is not PEM: it is binary, perhaps DER or PKCS #12, which the openssl " +
			"command can convert"
	}
	return "is not PEM: it has no line that begins with -----BEGIN"
}

func cutMarker(line, prefix string) (label string, ok bool) {
	rest, ok := strings.CutPrefix(line, prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "-----")
}

// withBIO runs f with a BIO that has a copy of data. If data is empty, or OpenSSL cannot make the
// BIO, f does not run. Call withBIO inside exclusive.
func (l *Library) withBIO(data []byte, f func(bio uintptr)) {
	bio := call(l.sym.bioNew, call(l.sym.bioSMem))
	if bio == 0 || len(data) == 0 {
		return
	}
	defer call(l.sym.bioFree, bio)
	if int(int32(call(l.sym.bioWrite, bio, uintptr(unsafe.Pointer(&data[0])),
		uintptr(len(data))))) == len(data) {
		f(bio)
	}
}

// noPassword is an empty password. If OpenSSL were given no password, it would open /dev/tty and
// wait there for one (pem_password_cb(3)).
var noPassword = cString("")

// readCert makes an X509 from a block. The caller must free it with x509Free. On failure cert is 0,
// and q says why.
func (l *Library) readCert(b *pemBlock) (cert uintptr, q queue) {
	q = l.exclusive(func() {
		l.withBIO(b.text, func(bio uintptr) {
			cert = call(l.sym.pemReadX509Aux, bio, 0, 0,
				uintptr(unsafe.Pointer(noPassword)))
		})
	})
	return cert, q
}

// readKey makes an EVP_PKEY from a block. The caller must free it with pkeyFree. On failure key is
// 0, and q says why.
func (l *Library) readKey(b *pemBlock) (key uintptr, q queue) {
	q = l.exclusive(func() {
		l.withBIO(b.text, func(bio uintptr) {
			key = call(l.sym.pemReadPrivateKey, bio, 0, 0,
				uintptr(unsafe.Pointer(noPassword)))
		})
	})
	return key, q
}

// withCString runs f with the address of s as a string of C, unless s is "".
func withCString(s string, f func(p uintptr)) {
	if s == "" {
		return
	}
	p := cString(s)
	f(uintptr(unsafe.Pointer(p)))
	runtime.KeepAlive(p)
}

// A CABundle is a set of certificates that a client trusts. It does not change. The garbage
// collector frees it, if Free has not done so. Contexts that were made with it live on.
type CABundle struct {
	lib     *Library
	name    string
	id      string // a hash of the PEM, for resumption
	cleanup runtime.Cleanup

	mu  sync.Mutex
	ctx uintptr // an SSL_CTX that trusts the set; contexts share it; 0 after Free
}

// ParseCABundle reads CA certificates in PEM, at least one. Comments, CRLF, repeated certificates
// and blocks that are not certificates are allowed. A certificate that OpenSSL cannot read is an
// error, even if all others are good. More than MaxCAs certificates are an error too. The parameter
// name is the path of the file, for error messages. The error is usually a *PEMError.
//
// Each certificate is an anchor of trust, whether it is self-signed or not
// (X509_V_FLAG_PARTIAL_CHAIN), as with curl and crypto/tls.
func (l *Library) ParseCABundle(name string, pem []byte) (*CABundle, error) {
	blocks, err := splitPEM(name, pem)
	if err != nil {
		return nil, err
	}
	ctx, err := l.newClientCtx()
	if err != nil {
		return nil, err
	}
	if err := l.trustBlocks(ctx, name, blocks); err != nil {
		l.freeCtx(ctx)
		return nil, err
	}
	b := &CABundle{lib: l, name: name, id: fmt.Sprintf("bundle %x", sha256.Sum256(pem)),
		ctx: ctx}
	b.cleanup = runtime.AddCleanup(b, l.freeCtx, ctx)
	return b, nil
}

// trustBlocks adds the certificates of a file to a context's store.
func (l *Library) trustBlocks(ctx uintptr, name string, blocks []pemBlock) error {
	different := map[string]bool{}
	var certs []*pemBlock
	for i := range blocks {
		b := &blocks[i]
		if text := string(bytes.TrimSpace(b.text)); b.isCert() && !different[text] {
			different[text] = true
			certs = append(certs, b)
		}
	}
	switch {
	case len(certs) == 0:
		return &PEMError{What: name, Reason: fmt.Sprintf("has no certificate: its first "+
			"PEM block is %q", blocks[0].label)}
	case len(certs) > MaxCAs:
		return &PEMError{What: name, Reason: fmt.Sprintf("has %d different certificates: "+
			"%d is the most", len(certs), MaxCAs)}
	}
	for _, b := range certs {
		cert, q := l.readCert(b)
		if cert == 0 {
			return b.fault(name, "is not a valid certificate: "+q.reason(), q)
		}
		ok := false
		q = l.exclusive(func() {
			// OpenSSL accepts a certificate that is in the store already.
			ok = int32(call(l.sym.storeAddCert, call(l.sym.ctxGetCertStore, ctx),
				cert)) == 1
			call(l.sym.x509Free, cert)
		})
		if !ok {
			return b.fault(name, "cannot be added to the trust store: "+q.reason(), q)
		}
	}
	l.exclusive(func() {
		call(l.sym.paramSetFlags, call(l.sym.ctxGet0Param, ctx), flagPartialChain)
	})
	return nil
}

// Free drops the bundle's reference to its SSL_CTX. A second Free does nothing.
func (b *CABundle) Free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx != 0 {
		b.cleanup.Stop()
		b.lib.freeCtx(b.ctx)
		b.ctx = 0
	}
}

// ref returns a new reference to the bundle's SSL_CTX.
func (b *CABundle) ref() (uintptr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == 0 {
		return 0, fmt.Errorf("CA bundle %s has been freed", b.name)
	}
	if err := b.lib.refCtx(b.ctx); err != nil {
		return 0, err
	}
	return b.ctx, nil
}
