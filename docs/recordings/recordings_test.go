package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// absolute finds absolute paths, and takes the first two names of each.
var absolute = regexp.MustCompile(`[\s'"=](/\w+(?:/\w+)?)`)

// Each picture is well-formed XML of at most 60 KiB, and shows its command. It has colours for
// light and dark screens, and names no path of the machine that recorded it.
func TestPicturesAreSmallAndReadableOnEachScreen(t *testing.T) {
	t.Parallel()
	for _, r := range recordings {
		text, err := os.ReadFile(r.file)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 60<<10 {
			t.Errorf("%s has %d bytes; want 60 KiB at most", r.file, len(text))
		}
		for _, want := range []string{"$ " + escape(r.command), escape(r.title),
			"prefers-color-scheme: dark", "prefers-reduced-motion"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q", r.file, want)
			}
		}
		for _, path := range absolute.FindAllStringSubmatch(string(text), -1) {
			// The subject of a certificate begins with /CN, and is no path.
			if path[1] != "/tmp/demo" && path[1] != "/CN" {
				t.Errorf("%s names %s, a path of the machine that recorded it",
					r.file, path[1])
			}
		}
		for dec := xml.NewDecoder(bytes.NewReader(text)); ; {
			if _, err = dec.Token(); err != nil {
				break
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s is not XML: %v", r.file, err)
		}
	}
}

// The picture of the crash shows the error, and that the script goes on.
func TestThePictureOfTheCrashShowsTheErrorAndWhatFollows(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("crash.svg")
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, want := range []string{"page 1: ",
		"lost: the worker of this session died of SIGSEGV", "page 3: ",
		"the script has ended in good order"} {
		i := strings.Index(string(text[at:]), want)
		if i < 0 {
			t.Fatalf("crash.svg lacks %q, or has it too early", want)
		}
		at += i
	}
}

// In a picture, fixed values replace process numbers, temporary folders and ports, which differ in
// each run. Long lines are cut.
func TestAPictureHasNothingOfTheMachine(t *testing.T) {
	t.Parallel()
	got := shown("\x1b[1mprocess 123\x1b[0m listens on /var/folders/x/tmp.aB3/s\r\n" +
		"https://localhost:20974/ and 127.0.0.1:1\n" + strings.Repeat("é", columns+1) + "\n")
	want := []string{"process 4711 listens on /tmp/demo/s",
		"https://localhost:8443/ and 127.0.0.1:8443", strings.Repeat("é", columns-1) + "…"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
