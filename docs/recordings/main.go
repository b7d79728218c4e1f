// Recordings makes the pictures of the README. For each picture it runs a command in a
// pseudo-terminal, and writes the output as an SVG file whose lines appear one after another.
//
//	go run ./docs/recordings     # make recordings
//
// The rules:
//
//   - A picture shows the output of a real run. If the command fails, the old picture stays.
//   - The recorder replaces the parts that differ in each run or machine: process numbers, ports
//     and temporary folders. A line of more than 110 columns is cut.
//   - The pace is fixed, so that a picture does not depend on the speed of the machine.
//   - A viewer without animation shows all lines. The colours follow the reader's choice of a light
//     or dark screen.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// A recording is a command and its picture.
type recording struct {
	file    string // of the picture
	title   string // for readers who cannot see it
	command string // as a reader types it, in the top folder of the source tree
}

var recordings = []recording{
	{"demo.svg", "make demo: a server script and a client script talk TLS through tlsd",
		"make demo"},
	{"crash.svg", "A crash of libssl ends a worker. The script gets an error and goes on",
		"sh docs/recordings/crash.sh"},
}

// folder has the pictures.
const folder = "docs/recordings"

func main() {
	for _, r := range recordings {
		lines, err := run(r.command)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, r.file), picture(r, lines), 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "recordings: %s: %v\n", r.command, err)
			os.Exit(1)
		}
	}
}
