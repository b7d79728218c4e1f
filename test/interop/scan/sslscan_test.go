//go:build scan

package scan

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// sslscan finds exactly the versions, suites and groups that our server must have, and no weakness.

// Why a finding is right. Each of these texts is used in several rows of the tables below.
const (
	safe   = "what RFC 9325 recommends"
	modern = "a suite of TLS 1.3"
	aead   = "authenticated encryption with ephemeral keys; the suites with CBC are left out"
	group  = "one of OpenSSL's default groups"
	finite = "OpenSSL's default: the groups of RFC 7919 for TLS 1.3; clients prefer curves"
)

// The findings of sslscan with every certificate.
var always = []finding{
	{"TLSv1.2 is enabled", safe, ""},
	{"TLSv1.3 is enabled", safe, ""},
	{"TLSv1.3 preferred TLS_AES_256_GCM_SHA384", modern, ""},
	{"TLSv1.3 accepted TLS_CHACHA20_POLY1305_SHA256", modern, ""},
	{"TLSv1.3 accepted TLS_AES_128_GCM_SHA256", modern, ""},
	{"TLSv1.3 group x25519", group, ""},
	{"TLSv1.3 group x448", group, ""},
	{"TLSv1.3 group secp256r1 (NIST P-256)", group, ""},
	{"TLSv1.3 group secp384r1 (NIST P-384)", group, ""},
	{"TLSv1.3 group secp521r1 (NIST P-521)", group, ""},
	{"TLSv1.3 group ffdhe2048", finite, "3 4"},
	{"TLSv1.3 group ffdhe3072", finite, "3 4"},
	{"TLSv1.3 group ffdhe4096", finite, "3.0"},
	{"TLSv1.3 group ffdhe6144", finite, "3.0"},
	{"TLSv1.3 group ffdhe8192", finite, "3.0"},
}

var withCert = map[string][]finding{
	"ECDSA": {
		{"TLSv1.2 preferred ECDHE-ECDSA-AES256-GCM-SHA384", aead, ""},
		{"TLSv1.2 accepted ECDHE-ECDSA-CHACHA20-POLY1305", aead, ""},
		{"TLSv1.2 accepted ECDHE-ECDSA-AES128-GCM-SHA256", aead, ""},
	},
	"RSA": {
		{"TLSv1.2 preferred ECDHE-RSA-AES256-GCM-SHA384", aead, ""},
		{"TLSv1.2 accepted ECDHE-RSA-CHACHA20-POLY1305", aead, ""},
		{"TLSv1.2 accepted ECDHE-RSA-AES128-GCM-SHA256", aead, ""},
	},
}

// report is the part of sslscan's XML that the test reads.
type report struct {
	Test struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled bool   `xml:"enabled,attr"`
		} `xml:"protocol"`
		Renegotiation struct {
			Supported bool `xml:"supported,attr"`
		} `xml:"renegotiation"`
		Compression struct {
			Supported bool `xml:"supported,attr"`
		} `xml:"compression"`
		Heartbleed []struct {
			Version    string `xml:"sslversion,attr"`
			Vulnerable bool   `xml:"vulnerable,attr"`
		} `xml:"heartbleed"`
		Ciphers []struct {
			Status  string `xml:"status,attr"`
			Version string `xml:"sslversion,attr"`
			Name    string `xml:"cipher,attr"`
		} `xml:"cipher"`
		Groups []struct {
			Version string `xml:"sslversion,attr"`
			Name    string `xml:"name,attr"`
		} `xml:"group"`
	} `xml:"ssltest"`
}

func (r report) findings() (found []string) {
	s := r.Test
	for _, p := range s.Protocols {
		if p.Enabled {
			found = append(found, map[string]string{"ssl": "SSLv",
				"tls": "TLSv"}[p.Type]+p.Version+" is enabled")
		}
	}
	if s.Renegotiation.Supported {
		found = append(found, "renegotiation")
	}
	if s.Compression.Supported {
		found = append(found, "compression")
	}
	for _, h := range s.Heartbleed {
		if h.Vulnerable {
			found = append(found, h.Version+" heartbleed")
		}
	}
	for _, c := range s.Ciphers {
		found = append(found, c.Version+" "+c.Status+" "+c.Name)
	}
	for _, g := range s.Groups {
		// Only groups of TLS 1.3 count. For TLS 1.2 sslscan names one group, which depends
		// on the release of sslscan.
		if g.Version == "TLSv1.3" {
			found = append(found, g.Version+" group "+g.Name)
		}
	}
	return found
}

// In our server sslscan finds exactly what the two tables have: always and withCert.
func TestSslscan(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]testcert.KeyType{"ECDSA": testcert.ECDSA,
		"RSA": testcert.RSA} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "report.xml")
			cmd := command(t, "sslscan", "--no-colour", "--no-check-certificate",
				"--sni-name=localhost", "--xml="+file)
			port, version := serve(t, testcert.NewCA(t, "Test CA"), key)
			cmd.Args = append(cmd.Args, testkit.Addr(port))
			out := run(t, cmd)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("sslscan has written no report: %v\n%s", err, out)
			}
			var r report
			if err := xml.Unmarshal(text, &r); err != nil {
				t.Fatalf("the report of sslscan is no XML: %v\n%s", err, text)
			}
			compare(t, version, r.findings(), slices.Concat(always, withCert[name]))
		})
	}
}
