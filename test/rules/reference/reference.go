// Package reference reads the code examples from the tls plugin's reference. The reference is a
// text file beside the checkout, and not part of it.
//
// The text was printed from formatted pages. So no line break separates an example from the text
// after it: "tls.Close($c);0". An example begins with the first line that is code. It ends with the
// first semicolon that has such a text after it on its line.
package reference

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// TypicalFlow is the name of the one example that is not about a single function.
const TypicalFlow = "typical flow"

// Example is one script of the reference, exactly as printed.
type Example struct {
	// Name is the function that the example explains, such as "tls.Read", or TypicalFlow.
	Name string
	// Source is the script: bare statements without plugin directives.
	Source string
	// Expect is the reference's text after the script: the output ("openssl", "<version>",
	// "[]"), the result of the last call ("0"), or a remark in parentheses. It is empty for
	// TypicalFlow, which is followed by a heading.
	Expect string
}

var (
	function  = regexp.MustCompile(`^tls\.[A-Z]\w*$`)
	flow      = regexp.MustCompile(`^A typical flow\b`)
	firstLine = regexp.MustCompile(
		`^(?:(?:i32|i64|double|string|blob) \$|//|printf\(|tls\.\w+\(.*\);)`)
)

// Examples reads all examples of the reference at path, in order. The error matches fs.ErrNotExist
// if there is no such file.
func Examples(path string) ([]Example, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	return parse(string(text))
}

func parse(text string) ([]Example, error) {
	var (
		examples []Example
		name     string // of the section that has not shown its example yet
	)
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		line = strings.TrimSuffix(line, "\r")
		heading := ""
		switch {
		case function.MatchString(line):
			heading = line
		case flow.MatchString(line):
			heading = TypicalFlow
		}
		if heading != "" && name != "" {
			break
		}
		if heading != "" {
			name = heading
		} else if name != "" && firstLine.MatchString(line) {
			source, expect, after, ok := cutExample(text)
			if !ok {
				return nil, fmt.Errorf("reference: the end of the example of %s "+
					"is not found", name)
			}
			if name == TypicalFlow {
				expect = ""
			}
			examples = append(examples,
				Example{Name: name, Source: source, Expect: expect})
			name, rest = "", after
		}
		text = rest
	}
	if name != "" {
		return nil, fmt.Errorf("reference: %s has no example", name)
	}
	if len(examples) == 0 {
		return nil, fmt.Errorf("reference: no examples in it")
	}
	return examples, nil
}

// cutExample cuts off the example at the start of text. The example ends with the first semicolon
// that has text other than a comment after it on its line. Semicolons in strings and in comments do
// not end it.
func cutExample(text string) (source, expect, after string, ok bool) {
	inString, inComment := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inComment:
			inComment = c != '\n'
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case strings.HasPrefix(text[i:], "//"):
			inComment = true
		case c == ';':
			line, rest, _ := strings.Cut(text[i+1:], "\n")
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "//") {
				return text[:i+1] + "\n", line, rest, true
			}
		}
	}
	return "", "", "", false
}
