package reference

import (
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const sample = `Introduction
tls.Backend() tells; it is no heading.
A typical flow — TLS client
i32 $c;
blob $req[256];
$req = blob.FromText("GET; x\"
y");
tls.Close($c);What to know
tls.Read
tls.Read(handle, maxBytes) -> blob
| Parameter | Type | Description |
| handle | int | The connection handle. |
The read data as a blob.
i32 $c;
// ... Write; not the end ...
tls.Close($c);   // nor is this
tls.Close($c);(the read bytes)
Prose that has a semicolon; and more.
tls.Backend
tls.Backend() -> string
This function takes no arguments.
printf("%s\n", tls.Backend());openssl
`

func TestExamplesAreTakenAsPrinted(t *testing.T) {
	got, err := parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	want := []Example{
		{TypicalFlow, "i32 $c;\nblob $req[256];\n$req = blob.FromText(\"GET; " +
			"x\\\"\ny\");\ntls.Close($c);\n", ""},
		{"tls.Read", "i32 $c;\n// ... Write; not the end ...\ntls.Close($c);   // nor is " +
			"this\ntls.Close($c);\n", "(the read bytes)"},
		{"tls.Backend", "printf(\"%s\\n\", tls.Backend());\n", "openssl"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTextWithoutItsExamplesIsAnError(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "no examples",
		"nothing here\n":               "no examples",
		"tls.Read\nprose\ntls.Close\n": "tls.Read has no example",
		"tls.Read\nprose\nprose":       "tls.Read has no example",
		"tls.Read\ni32 $c;\n":          "end of the example of tls.Read",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse(%q): %v, want an error with %q", text, err, want)
		}
	}
}

func TestMissingFileIsErrNotExist(t *testing.T) {
	_, err := Examples(filepath.Join(t.TempDir(), "none.txt"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v, want fs.ErrNotExist", err)
	}
}

func TestTheReferenceHasAllItsExamples(t *testing.T) {
	path, err := filepath.Abs("../../../../shared/reference/tls-plugin.txt")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := Examples(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the reference is not beside this checkout: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	expect := map[string]string{
		TypicalFlow:                 "",
		"tls.NewClient":             "(you continue with the handshake using the handle)",
		"tls.Handshake":             "(0 on success; otherwise a runtime error)",
		"tls.Write":                 "(the number of bytes sent)",
		"tls.Read":                  "(the read bytes)",
		"tls.Close":                 "0",
		"tls.SetInsecureSkipVerify": "0",

		"tls.NewServerContext": "(the context handle with which you accept connections)",

		"tls.Accept":             "(the connection handle for the accepted client)",
		"tls.CloseServerContext": "0",
		"tls.SetCaBundle":        "0",
		"tls.PeerCertSubject":    "(the certificate's subject, e.g. /CN=example.com)",
		"tls.Backend":            "openssl",
		"tls.Version":            "<version>",
		"tls.LastError":          "[]",
	}
	got := map[string]string{}
	for _, e := range examples {
		got[e.Name] = e.Expect
		if e.Name != TypicalFlow && !strings.Contains(e.Source, e.Name+"(") {
			t.Errorf("the example of %s does not call this function:\n%s", e.Name,
				e.Source)
		}
	}
	if len(examples) != len(expect) || !reflect.DeepEqual(got, expect) {
		t.Errorf("got %d examples %q\nwant %d %q", len(examples), got, len(expect), expect)
	}
}
