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
	// by version of OpenSSL, such as "1.1.1": what it says there; "" if it agrees
	except map[string]string
}

// in returns the judge's verdict with that version of OpenSSL, if it differs from ours.
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
		"it cannot parse; OpenSSL looks when it needs it"
	twice = "crypto/x509 refuses an extension that is there twice (RFC 5280 section " +
		"4.2). OpenSSL finds it for those that it knows, marks the certificate as " +
		"invalid, and then finds it no issuer"
	hides = "crypto/x509 tries each possible issuer; when none will do it says that " +
		"there is none, and gives the reason as a hint only"
	noLevel = "crypto/x509 has no security levels; crypto/tls alone demands 1024 bits of " +
		"RSA. OpenSSL's level 2 demands 112 bits of security, which is RSA with 2048"
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
		except: map[string]string{"4.": silent}, why: "OpenSSL compares the final dot, " +
			"and since 4.0 refuses it as no name; we take it away, as it only makes " +
			"the name absolute, and SNI must not have it (RFC 6066 section 3)"},
	{"trailing dot in both", judgeCommand}: {says: accepted,
		except: map[string]string{"4.": silent}, why: "as above: the command compares " +
			"with the dot, we without it; a certified name has none (RFC 5280 " +
			"section 4.2.1.6)"},
	{"IPv4 address wanted in IPv6 form", judgeCommand}: {says: "(64) at depth 0: IP " +
		"address mismatch", why: "OpenSSL compares 16 bytes with 4; we turn the wanted " +
		"one into its IPv4 form, which is what the connection uses"},
	{"bytes after the certificate", judgeCommand}: {says: accepted,
		except: map[string]string{"1.1.1": ""}, why: "PEM's base64 is decoded and what " +
			"follows the certificate is ignored, but for 1.1.1; a TLS message must " +
			"have nothing there (RFC 8446 section 4.4.2)"},

	// crypto/x509 accepts what we refuse
	{"wildcard for a top-level domain", judgeGo}: {says: accepted,
		why: "crypto/x509 has no minimum for what follows the wildcard; OpenSSL wants " +
			"two labels"},
	{"wildcard with an underscore", judgeGo}: {says: accepted,
		why: "to OpenSSL a wildcard stands for letters, digits and hyphens only; " +
			"crypto/x509 lets it stand for whatever is a label"},
	{"IPv4 address certified in IPv6 form", judgeGo}: {says: accepted,
		why: "net.IP.Equal takes both forms for the same; RFC 5280 section 4.2.1.6 wants " +
			"four bytes, and OpenSSL compares bytes"},
	{"trailing dot in both", judgeGo}: {says: accepted,
		why: "a certified name with a final dot is no host name to crypto/x509, which " +
			"then compares it with what is wanted letter by letter; we take the dot " +
			"away from what is wanted"},
	{"for any purpose", judgeGo}: {says: accepted,
		why: "OpenSSL's purpose sslserver does not take anyExtendedKeyUsage for " +
			"serverAuth, as RFC 5280 section 4.2.1.12 allows"},
	{"key for certificates only", judgeGo}:         {says: accepted, why: noUsage},
	{"key for commitments only", judgeGo}:          {says: accepted, why: noUsage},
	{"RSA with 1024 bits", judgeGo}:                {says: accepted, why: noLevel},
	{"intermediate's RSA with 1024 bits", judgeGo}: {says: accepted, why: noLevel},
	{"root's RSA with 1024 bits", judgeGo}:         {says: accepted, why: noLevel},

	// crypto/x509 refuses what we accept
	{"unknown extension twice", judgeGo}: {says: badForm, why: "crypto/x509 refuses " +
		"any extension that is there twice (RFC 5280 section 4.2); OpenSSL looks only " +
		"for those that it knows"},
	{"negative serial number", judgeGo}: {says: badForm, why: "RFC 5280 section " +
		"4.1.2.2 forbids it and asks to cope with it nevertheless"},
	{"permitted directory", judgeGo}: {says: badCritical, why: noDirs},
	{"wildcard over an excluded name", judgeGo}: {says: badScope, why: "a wildcard that " +
		"could stand for an excluded name is refused as a whole by crypto/x509; to " +
		"OpenSSL the constraint is not below the wildcard's letters, and the " +
		"name that is wanted is not the excluded one"},

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
