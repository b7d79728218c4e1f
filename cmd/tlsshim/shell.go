package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"tlsd/rpc/wire"
)

// shell is the subcommand shell: it makes the calls of each line of standard input, all in one
// session.
func (c *command) shell(ctx context.Context, _ []string) error {
	session, _, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := readLines(ctx, c.stdin)
	var failed, misused error
	for n := 1; ; n++ {
		var l line
		select {
		case l = <-lines:
		case <-ctx.Done():
			return ctx.Err()
		}
		if l.err == io.EOF {
			break
		}
		if l.err != nil {
			return fmt.Errorf("standard input, line %d: %w", n, l.err)
		}
		calls, err := parseLine(l.text)
		if err != nil {
			misused = errReported
			fmt.Fprintf(c.stderr, "tlsshim: line %d: %v\n", n, err)
			continue
		}
		for _, inv := range calls {
			if err = c.make(ctx, session, inv, printer{c}); err != nil {
				break
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, errLost) || !errors.Is(err, errReported) || ctx.Err() != nil:
			return err
		default:
			failed = err
		}
	}
	if misused != nil {
		return usageError{errors.New("lines were not understood")}
	}
	return failed
}

type line struct {
	text string
	err  error // io.EOF at the end
}

// readLines sends the lines of r, without line feeds. At the end of r it sends io.EOF in place of a
// line, and after a failed read the error. Then its goroutine ends. It also ends when ctx ends, but
// not during a read, because a read cannot be cancelled.
func readLines(ctx context.Context, r io.Reader) <-chan line {
	lines := make(chan line)
	go func() {
		in := bufio.NewScanner(r)
		in.Buffer(nil, wire.MaxLine)
		for {
			l := line{err: io.EOF}
			if in.Scan() {
				l = line{text: in.Text()}
			} else if in.Err() != nil {
				l.err = in.Err()
			}
			select {
			case lines <- l:
			case <-ctx.Done():
				return
			}
			if l.err != nil {
				return
			}
		}
	}()
	return lines
}

// parseLine turns a line into calls. An empty line or a comment has none.
func parseLine(s string) ([]invocation, error) {
	if t := strings.TrimSpace(s); t == "" || t[0] == '#' {
		return nil, nil
	}
	words, err := split(s)
	if err != nil {
		return nil, err
	}
	return parseCalls(words, source{})
}

// split splits a line into words. A word may have quoted and bare parts.
func split(s string) ([]string, error) {
	var words []string
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return words, nil
		}
		var word strings.Builder
		for s != "" && s[0] != ' ' && s[0] != '\t' {
			rest, err := part(&word, s)
			if err != nil {
				return nil, err
			}
			s = rest
		}
		words = append(words, word.String())
	}
}

// part adds the first part of s to the word, and returns the rest of s. A part is a quoted text, or
// one character outside of quotes.
func part(word *strings.Builder, s string) (string, error) {
	switch {
	case s[0] == '\'':
		inside, rest, ok := strings.Cut(s[1:], "'")
		if !ok {
			return "", errors.New("a single quote has no end")
		}
		word.WriteString(inside)
		return rest, nil
	case s[0] == '"':
		return escaped(word, s[1:], '"')
	case strings.HasPrefix(s, "$'"):
		return escaped(word, s[2:], '\'')
	case s[0] == '\\' && len(s) > 1:
		word.WriteByte(s[1])
		return s[2:], nil
	}
	word.WriteByte(s[0])
	return s[1:], nil
}

var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '0': 0, 'e': 0x1b, '\\': '\\',
	'"': '"', '\'': '\''}

// escaped adds the text of s before the closing quote to the word, with each escape replaced by its
// character. It returns the text after the quote.
func escaped(word *strings.Builder, s string, quote byte) (string, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return s[i+1:], nil
		case s[i] != '\\':
			word.WriteByte(s[i])
		case i+1 == len(s):
			return "", fmt.Errorf("a quote (%c) has no end", quote)
		case s[i+1] == 'x':
			if i+4 > len(s) {
				return "", errors.New(`\x needs two hexadecimal digits`)
			}
			n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				return "", fmt.Errorf(`\x%s: \x needs two hexadecimal digits`, s[i+2:i+4])
			}
			word.WriteByte(byte(n))
			i += 3
		default:
			b, ok := escapes[s[i+1]]
			if !ok {
				return "", fmt.Errorf(`\%c is not known; write \\ for a backslash`, s[i+1])
			}
			word.WriteByte(b)
			i++
		}
	}
	return "", fmt.Errorf("a quote (%c) has no end", quote)
}
