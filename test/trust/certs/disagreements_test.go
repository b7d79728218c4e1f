package certs

import "strings"

// The other judges.
const (
	judgeCommand = "openssl verify"
	judgeGo      = "crypto/x509"
)

type about struct{ row, judge string }

// A disagreement is a verdict of another judge that differs from ours.
type disagreement struct {
	says string // the whole verdict, or what is before the colon
	why  string
	// the verdicts with other versions of OpenSSL, by the version's beginning, such as "1.1.1";
	// "": the judge agrees
	except map[string]string
}

// `in` returns the judge's verdict with a version of OpenSSL. If the judge agrees with us, known is
// false.
func (d disagreement) in(version string) (says string, known bool) {
	says = d.says
	for v, s := range d.except {
		if strings.HasPrefix(version, v) {
			says = s
		}
	}
	return says, says != ""
}

// The reasons that explain several differences.
const (
	commonName = "the command has no option for X509_CHECK_FLAG_NEVER_CHECK_SUBJECT and " +
		"falls back to the common name; RFC 9525 section 2 forbids that, " +
		"and we set the flag"
	partial = "the command has no option for X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS; RFC " +
		"9525 section 6.3 wants a wildcard to be a whole label, and we set the flag"
	strict = "crypto/x509 parses each extension with the certificate, and refuses what " +
		"it cannot parse; OpenSSL parses an extension when it needs the extension"
	twice = "crypto/x509 refuses any extension that is there twice (RFC 5280 section " +
		"4.2). OpenSSL refuses only extensions that it knows: it marks the " +
		"certificate as invalid, and then finds no issuer for the certificate"
	hides = "crypto/x509 tries each possible issuer; if it can use none, it says that " +
		"the issuer is unknown, and gives the true reason only as a hint"
	noLevel = "crypto/x509 has no security levels; only crypto/tls demands RSA keys of " +
		"1024 bits. OpenSSL's level 2 demands 112 bits of security, so RSA keys of 2048"
	noUsage = "crypto/x509 leaves the key usage of a server's certificate to its caller; " +
		"OpenSSL's purpose sslserver demands digitalSignature, keyEncipherment or " +
		"keyAgreement"
	noDirs = "crypto/x509 knows no constraints on directory names, and must refuse them " +
		"if they are critical (RFC 5280 section 4.2)"
)

var disagreements = map[about]disagreement{
	// openssl verify
	{"name only as the common name", judgeCommand}:           {says: accepted, why: commonName},
	{"right common name, only a mail address", judgeCommand}: {says: accepted, why: commonName},
	{"wildcard in the common name", judgeCommand}:            {says: accepted, why: commonName},
	{"wildcard in part of a label", judgeCommand}:            {says: accepted, why: partial},
	{"wildcard at the end of a label", judgeCommand}:         {says: accepted, why: partial},
	{"trailing dot wanted", judgeCommand}: {says: "(62) at depth 0",
		except: map[string]string{"4.": silent}, why: "OpenSSL compares the final dot " +
			"too, and since 4.0 refuses such a name; we remove the dot, because it " +
			"only makes the name absolute, and is forbidden in SNI (RFC 6066 " +
			"section 3)"},
	{"trailing dot in both", judgeCommand}: {says: accepted,
		except: map[string]string{"4.": silent}, why: "the command compares the wanted " +
			"name with its dot, and we compare it without; a name in a certificate " +
			"may not end with a dot (RFC 5280 section 4.2.1.6)"},
	{"IPv4 address wanted in IPv6 form", judgeCommand}: {says: "(64) at depth 0: IP " +
		"address mismatch", why: "OpenSSL compares 16 bytes with 4; we turn the wanted " +
		"address into its IPv4 form, because the connection goes to that address"},
	{"bytes after the certificate", judgeCommand}: {says: accepted,
		except: map[string]string{"1.1.1": ""}, why: "the command reads the certificate " +
			"from PEM, and ignores bytes after it, except with 1.1.1; in a TLS " +
			"message no byte may follow it (RFC 8446 section 4.4.2)"},

	// crypto/x509 accepts what we refuse
	{"wildcard for a top-level domain", judgeGo}: {says: accepted,
		why: "crypto/x509 has no minimum for what follows the wildcard; OpenSSL wants " +
			"two labels"},
	{"wildcard with an underscore", judgeGo}: {says: accepted,
		why: "in OpenSSL a wildcard stands only for letters, digits and hyphens; in " +
			"crypto/x509 it stands for any label"},
	{"IPv4 address certified in IPv6 form", judgeGo}: {says: accepted,
		why: "net.IP.Equal takes both forms for the same; RFC 5280 section 4.2.1.6 wants " +
			"four bytes, and OpenSSL compares bytes"},
	{"trailing dot in both", judgeGo}: {says: accepted,
		why: "for crypto/x509 a certified name with a final dot is no host name, so it " +
			"compares this name with the wanted name letter by letter; we remove " +
			"the dot of the wanted name before"},
	{"for any purpose", judgeGo}: {says: accepted,
		why: "OpenSSL's purpose sslserver does not take anyExtendedKeyUsage for " +
			"serverAuth; RFC 5280 section 4.2.1.12 allows to refuse it"},
	{"key for certificates only", judgeGo}:         {says: accepted, why: noUsage},
	{"key for commitments only", judgeGo}:          {says: accepted, why: noUsage},
	{"RSA with 1024 bits", judgeGo}:                {says: accepted, why: noLevel},
	{"intermediate's RSA with 1024 bits", judgeGo}: {says: accepted, why: noLevel},
	{"root's RSA with 1024 bits", judgeGo}:         {says: accepted, why: noLevel},

	// crypto/x509 refuses what we accept
	{"unknown extension twice", judgeGo}: {says: badForm, why: "crypto/x509 refuses " +
		"any extension that is there twice (RFC 5280 section 4.2); OpenSSL refuses only " +
		"extensions that it knows"},
	{"negative serial number", judgeGo}: {says: badForm, why: "RFC 5280 section " +
		"4.1.2.2 forbids it to issuers, but asks readers to be prepared for it"},
	{"permitted directory", judgeGo}: {says: badCritical, why: noDirs},
	{"wildcard over an excluded name", judgeGo}: {says: badScope, why: "crypto/x509 " +
		"refuses a wildcard that could stand for an excluded name; OpenSSL compares " +
		"the excluded name with the letters of the wildcard name, which differ, and " +
		"the wanted name is not excluded"},

	// crypto/x509 refuses for another reason
	{"expired, and of another name", judgeGo}: {says: badTime,
		why: "crypto/x509 looks at the time first, OpenSSL at the name"},
	{"U-label in the certificate", judgeGo}:    {says: badForm, why: strict},
	{"address of a network", judgeGo}:          {says: badForm, why: strict},
	{"address of a wrong length", judgeGo}:     {says: badForm, why: strict},
	{"subjectAltName that is no DER", judgeGo}: {says: badForm, why: strict},
	{"subjectAltName twice", judgeGo}:          {says: badForm, why: twice},
	{"basicConstraints twice", judgeGo}:        {says: badForm, why: twice},
	{"two signature algorithms", judgeGo}: {says: badForm,
		why: "crypto/x509 compares the two when it parses, OpenSSL when it checks the " +
			"signature"},
	{"directory that is not permitted", judgeGo}: {says: badCritical,
		why: noDirs},
	{"signed with SHA-1", judgeGo}: {says: badAuthority,
		why: hides},
	{"signed with MD5", judgeGo}: {says: badAuthority,
		why: hides},
	{"intermediate signed with SHA-1", judgeGo}: {says: badAuthority,
		why: hides},
	{"intermediate with CA false", judgeGo}: {says: badAuthority,
		why: hides},
	{"intermediate without basic constraints", judgeGo}: {says: badAuthority,
		why: hides},
	{"intermediate without basic constraints, may sign", judgeGo}: {says: badAuthority,
		why: hides},
	{"root must not sign", judgeGo}: {says: badAuthority,
		why: hides},
	{"intermediate must not sign", judgeGo}: {says: badAuthority,
		why: hides},
	{"a server signs", judgeGo}: {says: badAuthority,
		why: hides},
	{"root with CA false", judgeGo}: {says: badAuthority,
		why: hides},
}
