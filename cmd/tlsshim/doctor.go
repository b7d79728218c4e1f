package main

import (
	"bytes"
	"context"
	"fmt"
)

// doctor is the subcommand: it examines everything that calls depend on, and prints its findings.
// The error is errReported if calls will not work.
func (c *command) doctor(ctx context.Context, _ []string) error {
	if c.timeout == 0 {
		c.timeout = questionTime
	}
	f := c.examine(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // the facts are incomplete
	}
	r := judge(f)
	var err error
	if c.json {
		err = c.line(r)
	} else {
		err = c.write(r.text())
	}
	if err == nil && !r.Usable {
		err = errReported
	}
	return err
}

// text is the report as text for people.
func (r report) text() []byte {
	var b bytes.Buffer
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-5s %-13s %s\n", f.Status, f.Check, clean(f.Text))
		if f.Mend != "" {
			fmt.Fprintf(&b, "%19s to mend it: %s\n", "", clean(f.Mend))
		}
	}
	if r.Usable {
		b.WriteString("calls will work\n")
	} else {
		b.WriteString("calls will not work\n")
	}
	return b.Bytes()
}
