package certs

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"strings"
	"testing"
)

// A row is one case of the matrix. Every chain has a root of its own, which the client trusts
// unless the chain says otherwise.
type row struct {
	name string
	make func(t *testing.T, root *issuer) chain
	host string // the host that the client wants: host.test if empty

	// The error that our client must return. If it must accept the chain, code and fails are
	// empty.
	code    int    // X509_V_ERR_…, openssl-verification-options(1)
	depth   int    // of the certificate at fault
	subject string // of that certificate; "": /CN=leaf; "-": the subject is empty
	fails   string // instead of code: part of an error that is not about verification
	early   bool   // NewClient already refuses the host; other judges are not asked
	// from this version on, OpenSSL refuses the host in NewClient, as with early
	until string
}

// single returns a function that makes a chain of one certificate, which the root has issued.
func single(changes ...change) func(*testing.T, *issuer) chain {
	return func(t *testing.T, root *issuer) chain { return root.leaf(changes...) }
}

// `below` returns a function that makes a chain with one authority between root and leaf. The
// authority is called Between, and has the changes.
func below(changes ...change) func(*testing.T, *issuer) chain {
	return func(t *testing.T, root *issuer) chain {
		return root.sub("Between", newKey(t), changes...).leaf()
	}
}

// scoped returns a function that makes a chain of three: the root, an authority, and a leaf. The
// parameter limit sets the name constraints of the authority.
func scoped(limit change, leaf ...change) func(*testing.T, *issuer) chain {
	return func(t *testing.T, root *issuer) chain {
		return root.sub("Between", newKey(t), limit).leaf(leaf...)
	}
}

func permit(dns ...string) change {
	return func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = dns, true
	}
}

func exclude(dns ...string) change {
	return func(c *x509.Certificate) {
		c.ExcludedDNSDomains, c.PermittedDNSDomainsCritical = dns, true
	}
}

func permitNet(cidr string) change {
	return func(c *x509.Certificate) {
		_, n, _ := net.ParseCIDR(cidr)
		c.PermittedIPRanges, c.PermittedDNSDomainsCritical = []*net.IPNet{n}, true
	}
}

// permitDirectory permits only subjects of an organisation. crypto/x509 cannot make this
// constraint, so the extension is given as bytes.
func permitDirectory(t *testing.T, organisation string) change {
	name := pkix.Name{Organization: []string{organisation}}.ToRDNSequence()
	return extension(oidNameConstraints, true,
		tlv(sequence, tlv(0xa0, tlv(sequence, tlv(nameDir, marshal(t, name))))))
}

var rows = []row{
	// Names.
	{name: "right name", make: single()},
	{name: "right among several names", make: single(named("a.test", "host.test", "b.test"))},
	{name: "another name", make: single(named("other.test")), code: 62},
	{name: "right name as the beginning of another", make: single(named("host.test.evil.test")),
		code: 62},
	{name: "right name as the end of another", make: single(named("a-host.test")), code: 62},
	{name: "upper case wanted", make: single(), host: "HOST.Test"},
	{name: "upper case in the certificate", make: single(named("Host.TEST"))},
	{name: "trailing dot wanted", make: single(), host: "host.test."},
	{name: "trailing dot in the certificate", make: single(named("host.test.")), code: 62},
	{name: "trailing dot in both", make: single(named("host.test.")), host: "host.test.",
		code: 62},
	{name: "two trailing dots wanted", make: single(), host: "host.test..", early: true,
		fails: "is not a host name"},
	{name: "leading dot in the certificate", make: single(named(".test")), code: 62},
	// OpenSSL would accept any name that ends with .test
	{name: "leading dot wanted", make: single(), host: ".test", early: true,
		fails: "is not a host name"},
	{name: "one letter", make: single(named("a")), host: "a", until: "4."},
	{name: "empty label wanted", make: single(), host: "host..test", code: 62, until: "4."},
	{name: "underscore", make: single(named("a_b.test")), host: "a_b.test"},
	{name: "name only as the common name", make: single(called("host.test"), named()), code: 62,
		subject: "/CN=host.test"},
	{name: "right common name, another name",
		make: single(called("host.test"), named("other.test")), code: 62,
		subject: "/CN=host.test"},
	{name: "right common name, only a mail address",
		make: single(called("host.test"), altName(nameMail, "a@host.test")), code: 62,
		subject: "/CN=host.test"},
	{name: "the name is a mail address's", make: single(altName(nameMail, "host.test")),
		code: 62},
	{name: "no name at all", make: single(named()), code: 62},
	{name: "no subject", make: single(func(c *x509.Certificate) { c.Subject = pkix.Name{} })},
	{name: "no subject, another name",
		make: single(func(c *x509.Certificate) { c.Subject = pkix.Name{} },
			named("other.test")), code: 62, subject: "-"},

	// Wildcards (RFC 9525 section 6.3).
	{name: "wildcard", make: single(named("*.wild.test")), host: "www.wild.test"},
	{name: "wildcard in upper case", make: single(named("*.WILD.test")), host: "WWW.wild.test"},
	{name: "wildcard for two labels", make: single(named("*.wild.test")),
		host: "a.b.wild.test", code: 62},
	{name: "wildcard for no label", make: single(named("*.wild.test")),
		host: "wild.test", code: 62},
	{name: "wildcard in part of a label", make: single(named("w*.wild.test")),
		host: "www.wild.test", code: 62},
	{name: "wildcard at the end of a label", make: single(named("*w.wild.test")),
		host: "www.wild.test", code: 62},
	{name: "wildcard in the second label", make: single(named("www.*.test")),
		host: "www.wild.test", code: 62},
	{name: "two wildcards", make: single(named("*.*.test")), host: "www.wild.test", code: 62},
	{name: "wildcard alone", make: single(named("*")), host: "localhost", code: 62},
	{name: "wildcard alone for two labels", make: single(named("*")), code: 62},
	{name: "wildcard for a top-level domain", make: single(named("*.test")), code: 62},
	{name: "wildcard with an underscore", make: single(named("*.wild.test")),
		host: "a_b.wild.test", code: 62},
	{name: "wildcard for an address", make: single(named("*.0.0.1")), host: "127.0.0.1",
		code: 64},
	{name: "wildcard in the common name", make: single(called("*.wild.test"), named()),
		host: "www.wild.test", code: 62, subject: "/CN=*.wild.test"},
	{name: "wildcard is wanted", make: single(named("www.wild.test")), host: "*.wild.test",
		code: 62, until: "4."},

	// International names (RFC 5890): only as A-labels.
	{name: "A-label", make: single(named("xn--mller-kva.test")), host: "xn--mller-kva.test"},
	{name: "A-label in upper case", make: single(named("XN--MLLER-KVA.test")),
		host: "xn--mller-kva.test"},
	{name: "wildcard for an A-label", make: single(named("*.wild.test")),
		host: "xn--mller-kva.wild.test"},
	{name: "wildcard in part of an A-label", make: single(named("xn--*.wild.test")),
		host: "xn--mller-kva.wild.test", code: 62},
	{name: "U-label in the certificate", make: single(altName(nameDNS, "müller.test")),
		host: "xn--mller-kva.test", code: 62},
	{name: "U-label is wanted", make: single(named("xn--mller-kva.test")), host: "müller.test",
		early: true, fails: "write the xn-- form"},

	// Addresses.
	{name: "IPv4 address", make: single(at("127.0.0.1")), host: "127.0.0.1"},
	{name: "another IPv4 address", make: single(at("127.0.0.2")), host: "127.0.0.1", code: 64},
	{name: "IPv6 address", make: single(at("2001:db8::1")), host: "2001:db8::1"},
	{name: "IPv6 address written in full", make: single(at("2001:db8::1")),
		host: "2001:0DB8:0:0:0:0:0:1"},
	{name: "another IPv6 address", make: single(at("2001:db8::2")), host: "2001:db8::1",
		code: 64},
	{name: "IPv4 address wanted in IPv6 form", make: single(at("127.0.0.1")),
		host: "::ffff:127.0.0.1"},
	{name: "IPv4 address certified in IPv6 form",
		make: single(altName(nameAddress, string(net.ParseIP("127.0.0.1").To16()))),
		host: "127.0.0.1", code: 64},
	{name: "address of a network",
		make: single(altName(nameAddress, "\x7f\x00\x00\x01\xff\x00\x00\x00")),
		host: "127.0.0.1", code: 64},
	{name: "address of a wrong length", make: single(altName(nameAddress, "\x7f\x00\x00")),
		host: "127.0.0.1", code: 64},
	{name: "address wanted, certified as a DNS name", make: single(named("127.0.0.1")),
		host: "127.0.0.1", code: 64},
	{name: "address wanted, only names certified", make: single(), host: "127.0.0.1", code: 64},
	{name: "IPv6 address wanted, only names certified", make: single(),
		host: "2001:db8::1", code: 64},
	{name: "IPv6 address wanted, certified as a DNS name", make: single(named("2001:db8::1")),
		host: "2001:db8::1", code: 64},
	{name: "name wanted, only an address certified", make: single(at("127.0.0.1")), code: 62},
	{name: "address only as the common name", make: single(called("127.0.0.1"), named()),
		host: "127.0.0.1", code: 64, subject: "/CN=127.0.0.1"},

	// Embedded NUL.
	{name: "NUL after the right name", make: single(named("host.test\x00.evil.test")),
		code: 62},
	{name: "NUL at the end of the right name", make: single(named("host.test\x00")), code: 62},
	{name: "NUL in the common name", make: single(called("host.test\x00.evil.test"), named()),
		code: 62, subject: `/CN=host.test\x00.evil.test`},
	{name: "NUL is wanted", make: single(), host: "host.test\x00.evil.test", early: true,
		fails: "is not a host name"},

	// Time.
	{name: "expired", make: single(valid(-2, -1)), code: 10},
	{name: "not yet valid", make: single(valid(1, 2)), code: 9},
	{name: "ends before it begins", make: single(valid(1, -1)), code: 9},
	// OpenSSL checks the name first
	{name: "expired, and of another name", make: single(valid(-2, -1), named("other.test")),
		code: 62},
	// the end of the year 9999 means "no end" (RFC 5280 section 4.1.2.5)
	{name: "without an end", make: single(func(c *x509.Certificate) { c.NotAfter = endless })},
	{name: "expired intermediate", make: below(valid(-2, -1)), code: 10, depth: 1,
		subject: "/CN=Between"},
	{name: "intermediate not yet valid", make: below(valid(1, 2)), code: 9, depth: 1,
		subject: "/CN=Between"},
	{name: "expired root", make: func(t *testing.T, _ *issuer) chain {
		old := newRoot(t, "Old Root", newKey(t), valid(-2, -1))
		return old.leaf().trusting(old.der)
	}, code: 10, depth: 1, subject: "/CN=Old Root"},
	{name: "expired, and its own anchor", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf(valid(-2, -1))
		return c.trusting(c.shown[0])
	}, code: 10},
	{name: "impossible date", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf(func(c *x509.Certificate) { c.NotAfter = february })
		return c.own(resign(t, c.shown[0], root.key, []byte("400228120000Z"),
			[]byte("400230120000Z")))
	}, code: 14},

	// Authority.
	{name: "self-signed", make: func(t *testing.T, _ *issuer) chain { return selfSigned(t) },
		code: 18},
	{name: "self-signed, its own anchor", make: func(t *testing.T, _ *issuer) chain {
		c := selfSigned(t)
		return c.trusting(c.shown[0])
	}},
	{name: "its own anchor", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf()
		return c.trusting(c.shown[0])
	}},
	{name: "unknown root", make: func(t *testing.T, root *issuer) chain {
		return newRoot(t, "Other", newKey(t)).leaf()
	}, code: 20},
	{name: "unknown root, which is shown", make: func(t *testing.T, root *issuer) chain {
		other := newRoot(t, "Other", newKey(t))
		return other.leaf().alsoShowing(other.der)
	}, code: 19, depth: 1, subject: "/CN=Other"},
	{name: "intermediate of an unknown root", make: func(t *testing.T, root *issuer) chain {
		return newRoot(t, "Other", newKey(t)).sub("Between", newKey(t)).leaf()
	}, code: 20, depth: 1, subject: "/CN=Between"},
	{name: "root of the same name", make: func(t *testing.T, root *issuer) chain {
		return newRoot(t, "Root", newKey(t)).leaf()
	}, code: 20},
	{name: "root of the same name, no key identifier",
		make: func(t *testing.T, root *issuer) chain {
			other := newRoot(t, "Root", newKey(t))
			other.cert.SubjectKeyId = nil
			return other.leaf()
		}, code: 7},
	{name: "missing intermediate", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Between", newKey(t)).leaf().notShowing(1)
	}, code: 20},
	{name: "chain of three", make: below()},
	{name: "chain of four", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Upper", newKey(t)).sub("Lower", newKey(t)).leaf()
	}},
	{name: "chain of four, one missing", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Upper", newKey(t)).sub("Lower", newKey(t)).leaf().notShowing(2)
	}, code: 20, depth: 1, subject: "/CN=Lower"},
	{name: "chain in disorder, with strangers", make: func(t *testing.T, root *issuer) chain {
		c := root.sub("Upper", newKey(t)).sub("Lower", newKey(t)).leaf()
		other := newRoot(t, "Other", newKey(t))
		c.shown = [][]byte{c.shown[0], other.der, c.shown[2], c.shown[1],
			c.shown[1], root.der}
		return c
	}},
	{name: "intermediate in the bundle, shown", make: func(t *testing.T, root *issuer) chain {
		sub := root.sub("Between", newKey(t))
		return sub.leaf().trusting(sub.der)
	}},
	{name: "intermediate in the bundle, not shown",
		make: func(t *testing.T, root *issuer) chain {
			sub := root.sub("Between", newKey(t))
			return sub.leaf().notShowing(1).trusting(sub.der)
		}},
	{name: "intermediate expired as shown, good in the bundle",
		make: func(t *testing.T, root *issuer) chain {
			key := newKey(t)
			old, good := root.sub("Between", key, valid(-2, -1)),
				root.sub("Between", key)
			return old.leaf().trusting(root.der, good.der)
		}},
	{name: "two bundled roots of the same name", make: func(t *testing.T, root *issuer) chain {
		twin := newRoot(t, "Root", newKey(t))
		return root.leaf().trusting(twin.der, root.der)
	}},
	{name: "damaged signature", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf()
		return c.own(damaged(t, c.shown[0]))
	}, code: 7},
	{name: "damaged signature of an intermediate",
		make: func(t *testing.T, root *issuer) chain {
			c := root.sub("Between", newKey(t)).leaf()
			c.shown[1] = damaged(t, c.shown[1])
			return c
		}, code: 7, depth: 1, subject: "/CN=Between"},
	{name: "two signature algorithms", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf()
		return c.own(mislabelled(t, c.shown[0]))
	}, code: 7},

	// Certificates that are no authorities.
	{name: "intermediate with CA false", make: below(notCA), code: invalidCA, depth: 1,
		subject: "/CN=Between"},
	{name: "intermediate without basic constraints", make: below(noBasicConstraints, usage(0)),
		code: invalidCA, depth: 1, subject: "/CN=Between"},
	{name: "intermediate without basic constraints, may sign", make: below(noBasicConstraints),
		code: invalidCA, depth: 1, subject: "/CN=Between"},
	{name: "a server signs", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Between", newKey(t), notCA,
			usage(x509.KeyUsageDigitalSignature)).leaf()
	}, code: invalidCA, depth: 1, subject: "/CN=Between"},
	{name: "root with CA false", make: func(t *testing.T, _ *issuer) chain {
		bad := newRoot(t, "Bad Root", newKey(t), notCA)
		return bad.leaf().trusting(bad.der)
	}, code: invalidCA, depth: 1, subject: "/CN=Bad Root"},
	{name: "intermediate must not sign", make: below(usage(x509.KeyUsageCRLSign)),
		code: invalidCA, depth: 1, subject: "/CN=Between"},
	{name: "root must not sign", make: func(t *testing.T, _ *issuer) chain {
		bad := newRoot(t, "Bad Root", newKey(t), usage(x509.KeyUsageCRLSign))
		return bad.leaf().trusting(bad.der)
	}, code: invalidCA, depth: 1, subject: "/CN=Bad Root"},
	{name: "path as long as allowed", make: below(pathLength(0))},
	{name: "path too long", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Upper", newKey(t), pathLength(0)).sub("Lower", newKey(t)).leaf()
	}, code: 25, depth: 2, subject: "/CN=Upper"},
	{name: "path too long for the root", make: func(t *testing.T, _ *issuer) chain {
		short := newRoot(t, "Short Root", newKey(t), pathLength(0))
		return short.sub("Between", newKey(t)).leaf().trusting(short.der)
	}, code: 25, depth: 2, subject: "/CN=Short Root"},
	{name: "the server is an authority",
		make: single(usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign),
			func(c *x509.Certificate) { c.IsCA = true })},

	// Usage.
	{name: "no extended key usage", make: single(purpose())},
	{name: "for clients only", make: single(purpose(x509.ExtKeyUsageClientAuth)), code: 26},
	{name: "for any purpose", make: single(purpose(x509.ExtKeyUsageAny)), code: 26},
	{name: "intermediate for clients only", make: below(purpose(x509.ExtKeyUsageClientAuth)),
		code: 26, depth: 1, subject: "/CN=Between"},
	{name: "intermediate for servers", make: below(purpose(x509.ExtKeyUsageServerAuth))},
	{name: "no key usage", make: single(usage(0))},
	{name: "key for certificates only", make: single(usage(x509.KeyUsageCertSign)), code: 26},
	{name: "key for commitments only", make: single(usage(x509.KeyUsageContentCommitment)),
		code: 26},

	// Name constraints.
	{name: "permitted name", make: scoped(permit("test"))},
	{name: "permitted by a leading dot", make: scoped(permit(".test"))},
	{name: "name that is not permitted", make: scoped(permit("other.test")), code: 47},
	{name: "one of two names is not permitted",
		make: scoped(permit("test"), named("host.test", "host.other")), code: 47},
	{name: "excluded name", make: scoped(exclude("host.test")), code: 48},
	{name: "excluded above", make: scoped(exclude("test")), code: 48},
	{name: "another is excluded", make: scoped(exclude("other.test"))},
	{name: "wildcard that is not permitted",
		make: scoped(permit("other.test"), named("*.wild.test")),
		host: "www.wild.test", code: 47},
	{name: "wildcard over an excluded name",
		make: scoped(exclude("www.wild.test"), named("*.wild.test")), host: "a.wild.test"},
	{name: "permitted address", make: scoped(permitNet("127.0.0.0/8"), at("127.0.0.1")),
		host: "127.0.0.1"},
	{name: "address that is not permitted", make: scoped(permitNet("10.0.0.0/8"),
		at("127.0.0.1")), host: "127.0.0.1", code: 47},
	{name: "address where only names are constrained",
		make: scoped(permit("test"), at("127.0.0.1")), host: "127.0.0.1"},
	{name: "permitted IPv6 address", make: scoped(permitNet("2001:db8::/32"),
		at("2001:db8::1")), host: "2001:db8::1"},
	{name: "IPv6 address where IPv4 is permitted", make: scoped(permitNet("127.0.0.0/8"),
		at("2001:db8::1")), host: "2001:db8::1", code: 47},
	{name: "permitted above, excluded below", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Upper", newKey(t), permit("test")).sub("Lower", newKey(t),
			exclude("host.test")).leaf()
	}, code: 48},
	{name: "name that is not permitted by the root", make: func(t *testing.T, _ *issuer) chain {
		narrow := newRoot(t, "Narrow Root", newKey(t), permit("other.test"))
		return narrow.leaf().trusting(narrow.der)
	}, code: 47},
	{name: "permitted directory", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Between", newKey(t), permitDirectory(t, "Ours")).leaf(
			func(c *x509.Certificate) {
				c.Subject = pkix.Name{Organization: []string{
					"Ours"}}
			})
	}},
	{name: "directory that is not permitted", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Between", newKey(t), permitDirectory(t, "Ours")).leaf()
	}, code: 47},

	// Strength, at security level 2.
	{name: "RSA with 2048 bits",
		make: func(t *testing.T, root *issuer) chain {
			return root.leafWith(rsaKey(t, 2048))
		}},
	{name: "RSA with 1024 bits",
		make: func(t *testing.T, root *issuer) chain {
			return root.leafWith(rsaKey(t, 1024))
		}, code: 66},
	{name: "intermediate's RSA with 1024 bits", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Between", rsaKey(t, 1024)).leaf()
	}, code: 67, depth: 1, subject: "/CN=Between"},
	{name: "root's RSA with 1024 bits", make: func(t *testing.T, _ *issuer) chain {
		weak := newRoot(t, "Weak Root", rsaKey(t, 1024))
		return weak.leaf().trusting(weak.der)
	}, code: 67, depth: 1, subject: "/CN=Weak Root"},
	{name: "signed with SHA-1", make: single(signedWith(x509.ECDSAWithSHA1)), code: 68},
	{name: "intermediate signed with SHA-1", make: below(signedWith(x509.ECDSAWithSHA1)),
		code: 68, depth: 1, subject: "/CN=Between"},
	// judges do not check the signature of a root
	{name: "root signed with SHA-1", make: func(t *testing.T, _ *issuer) chain {
		old := newRoot(t, "Old Root", newKey(t), signedWith(x509.ECDSAWithSHA1))
		return old.leaf().trusting(old.der)
	}},
	{name: "signed with MD5", make: func(t *testing.T, _ *issuer) chain {
		key := rsaKey(t, 2048)
		root := newRoot(t, "RSA Root", key)
		c := root.leaf()
		return c.own(withMD5(t, c.shown[0], key)).trusting(root.der)
	}, code: 68},
	{name: "Ed25519 all the way", make: func(t *testing.T, _ *issuer) chain {
		root := newRoot(t, "Ed25519 Root", edKey(t))
		return root.sub("Between", edKey(t)).leafWith(edKey(t)).trusting(root.der)
	}},
	{name: "P-384 by P-521", make: func(t *testing.T, _ *issuer) chain {
		root := newRoot(t, "P-521 Root", curve(t, elliptic.P521()))
		return root.leafWith(curve(t, elliptic.P384())).trusting(root.der)
	}},
	{name: "intermediate's P-224", make: func(t *testing.T, root *issuer) chain {
		return root.sub("Between", curve(t, elliptic.P224())).leaf()
	}},
	{name: "RSA-PSS signature", make: func(t *testing.T, _ *issuer) chain {
		root := newRoot(t, "PSS Root", rsaKey(t, 2048), signedWith(x509.SHA256WithRSAPSS))
		return root.leaf(signedWith(x509.SHA384WithRSAPSS)).trusting(root.der)
	}},

	// Extensions and form.
	{name: "unknown extension", make: single(extension(oidUnknown, false, []byte{5, 0}))},
	{name: "critical unknown extension", make: single(extension(oidUnknown, true,
		[]byte{5, 0})), code: 34},
	{name: "critical unknown extension of an intermediate",
		make: below(extension(oidUnknown, true, []byte{5, 0})), code: 34, depth: 1,
		subject: "/CN=Between"},
	{name: "critical unknown extension of the root", make: func(t *testing.T, _ *issuer) chain {
		odd := newRoot(t, "Odd Root", newKey(t), extension(oidUnknown, true, []byte{5, 0}))
		return odd.leaf().trusting(odd.der)
	}, code: 34, depth: 1, subject: "/CN=Odd Root"},
	{name: "unknown extension twice", make: single(extension(oidUnknown, false, []byte{5, 0}),
		extension(oidUnknown, false, []byte{5, 0}))},
	{name: "subjectAltName twice",
		make: single(altName(nameDNS, "host.test"), altName(nameDNS, "other.test")),
		code: 20},
	{name: "basicConstraints twice",
		make: single(extension(oidBasicConstraints, true, []byte{0x30, 0}),
			extension(oidBasicConstraints, true, []byte{0x30, 0})), code: 20},
	{name: "the same name twice", make: single(named("host.test", "host.test"))},
	{name: "subjectAltName that is no DER",
		make: single(extension(oidSAN, false, []byte("garbage"))), code: 20},
	{name: "subjectAltName without names", make: single(extension(oidSAN, false,
		[]byte{0x30, 0})), code: 62},
	{name: "version 1 intermediate", make: func(t *testing.T, root *issuer) chain {
		v1 := root.sub("Between", newKey(t), noBasicConstraints, usage(0), noKeyIdentifier)
		return v1.patch(root, version3, nil).leaf()
	}, code: invalidCA, depth: 1, subject: "/CN=Between"},
	{name: "serial number 0", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf(func(c *x509.Certificate) { c.SerialNumber = serial7 })
		return c.own(resign(t, c.shown[0], root.key, []byte{2, 1, 7, 0x30},
			[]byte{2, 1, 0, 0x30}))
	}},
	{name: "negative serial number", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf(func(c *x509.Certificate) { c.SerialNumber = serial7 })
		return c.own(resign(t, c.shown[0], root.key, []byte{2, 1, 7, 0x30},
			[]byte{2, 1, 0x87, 0x30}))
	}},
	{name: "long subject", make: single(called(strings.Repeat("x", 3000)), named("other.test")),
		code: 62, subject: "/CN=" + strings.Repeat("x", 3000)},
	{name: "subject with other than ASCII", make: single(called("Müller\n"),
		named("other.test")), code: 62, subject: `/CN=M\xC3\xBCller\x0A`},
	{name: "not a certificate", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf()
		return c.own([]byte("this is no certificate"))
	}, fails: "TLS handshake failed"},
	{name: "certificate cut short", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf()
		return c.own(c.shown[0][:len(c.shown[0])/2])
	}, fails: "TLS handshake failed"},
	{name: "bytes after the certificate", make: func(t *testing.T, root *issuer) chain {
		c := root.leaf()
		return c.own(append(bytes.Clone(c.shown[0]), 0))
	}, fails: "TLS handshake failed"},
}
