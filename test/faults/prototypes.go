package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A function is a prototype of openssl/testdata/abi.c, with the types that matter to a call.
type function struct {
	name string
	// "void", "int", "long", "unsigned long", "uint64_t", "void *" or "const char *"
	result     string
	parameters []string // likewise; all pointers are "void *"
}

// scalars are the types that are no pointers.
var scalars = map[string]bool{"void": true, "int": true, "long": true, "unsigned long": true,
	"unsigned int": true, "uint64_t": true, "size_t": true}

var (
	functionLine  = regexp.MustCompile(`^FUNCTION\((.+?), (\w+), \((.*)\)\)$`)
	conditionLine = regexp.MustCompile(`^#if V([34])\b`)
)

// parsePrototypes returns the functions that the headers of a major version have. It understands
// only the preprocessor lines that abi.c uses around them.
func parsePrototypes(text string, major int) ([]function, error) {
	var (
		functions []function
		seen      = map[string]bool{}
		// for each open #if, whether its lines are used; the first element is for the whole
		// file
		taken = []bool{true}
	)
	_, body, ok := strings.Cut(text, "#define V4 ")
	if !ok {
		return nil, errors.New("it does not define V4: is it another file?")
	}
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		last := len(taken) - 1
		switch condition := conditionLine.FindStringSubmatch(line); {
		case condition != nil:
			taken = append(taken, major >= int(condition[1][0]-'0'))
			continue
		case strings.HasPrefix(line, "#else") && last > 0:
			taken[last] = !taken[last]
			continue
		case strings.HasPrefix(line, "#endif") && last > 0:
			taken = taken[:last]
			continue
		case strings.HasPrefix(line, "#"):
			return nil, fmt.Errorf("%q is not understood", line)
		}
		if !strings.HasPrefix(line, "FUNCTION(") || !all(taken) {
			continue
		}
		m := functionLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("%q is not understood", line)
		}
		f := function{name: m[2], result: simple(m[1])}
		if m[1] == "const char *" || m[1] == "char *" {
			f.result = "const char *"
		}
		if m[3] != "void" {
			for p := range strings.SplitSeq(m[3], ",") {
				f.parameters = append(f.parameters, simple(strings.TrimSpace(p)))
			}
		}
		for _, t := range append(f.parameters, f.result) {
			if !scalars[t] && !strings.HasSuffix(t, "*") {
				return nil, fmt.Errorf("%s: the type %q is not understood", f.name,
					t)
			}
		}
		if seen[f.name] {
			return nil, fmt.Errorf("%s is there twice", f.name)
		}
		seen[f.name] = true
		functions = append(functions, f)
	}
	if len(functions) == 0 {
		return nil, errors.New("it has no prototypes")
	}
	return functions, nil
}

// simple reduces a type to the part that matters: all pointers, also to functions, are "void *".
func simple(t string) string {
	if strings.HasSuffix(t, "*") || strings.HasSuffix(t, "_func") ||
		strings.Contains(t, "(*)") {
		return "void *"
	}
	return t
}

func all(taken []bool) bool {
	for _, t := range taken {
		if !t {
			return false
		}
	}
	return true
}

// counts says whether the last parameters are a buffer and its size, and the result is the number
// of processed bytes.
func (f function) counts() bool {
	n := len(f.parameters)
	return f.result == "int" && n >= 2 && f.parameters[n-2] == "void *" &&
		f.parameters[n-1] == "int" &&
		(strings.HasSuffix(f.name, "read") || strings.HasSuffix(f.name, "write"))
}

// wrapper returns the function's line in the generated source.
func (f function) wrapper() string {
	var declared, passed []string
	for i, t := range f.parameters {
		name := string(rune('a' + i))
		declared = append(declared, t+" "+name)
		passed = append(passed, name)
	}
	parameters, arguments := strings.Join(declared, ", "), strings.Join(passed, ", ")
	if len(declared) == 0 {
		parameters = "void"
	}
	switch {
	case f.result == "void":
		return fmt.Sprintf("NOTHING(%s, (%s), (%s))", f.name, parameters, arguments)
	case f.counts():
		return fmt.Sprintf("BYTES(%s, %s, (%s), (%s), %s)", f.result, f.name, parameters,
			arguments, passed[len(passed)-1])
	}
	return fmt.Sprintf("VALUE(%s, %s, (%s), (%s))", f.result, f.name, parameters, arguments)
}

// wrappers returns the generated source.
func wrappers(functions []function) string {
	var b strings.Builder
	b.WriteString("#include <stddef.h>\n\n#include \"faultssl.h\"\n\n")
	for _, f := range functions {
		b.WriteString(f.wrapper() + "\n")
	}
	return b.String()
}

// versionScript gives the wrappers a version. Only a look-up without a version finds them.
func versionScript(functions []function) string {
	var b strings.Builder
	b.WriteString("FAULTSSL {\nglobal:\n")
	for _, f := range functions {
		b.WriteString("\t" + f.name + ";\n")
	}
	b.WriteString("local:\n\t*;\n};\n")
	return b.String()
}
