package openssl

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What Go's compiler cannot see is checked in two steps. testdata/abi.c has the
// C type of each symbol and the value of each constant, and a C compiler holds it
// against OpenSSL's headers (make libssl-matrix). These tests hold the package against abi.c.

// A prototype is a FUNCTION of abi.c.
type prototype struct {
	result     string
	parameters int
}

var (
	functionLine = regexp.MustCompile(`(?m)^FUNCTION\((.+?), (\w+), \((.*)\)\)$`)
	constantLine = regexp.MustCompile(`(?m)^CONSTANT\((\w+), (.+), (\w+)\)$`)
)

// prototypes reads abi.c. A function may stand there several times.
func prototypes(t *testing.T) map[string][]prototype {
	t.Helper()
	found := map[string][]prototype{}
	for _, m := range functionLine.FindAllStringSubmatch(abiText(t), -1) {
		p := prototype{result: m[1]}
		if m[3] != "void" {
			p.parameters = strings.Count(m[3], ",") + 1
		}
		found[m[2]] = append(found[m[2]], p)
	}
	return found
}

func abiText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/abi.c")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// libc are the symbols that are not OpenSSL's.
var libc = map[string]prototype{"__errno_location": {"int *", 0}, "__error": {"int *", 0}}

func TestEverySymbolHasAPrototype(t *testing.T) {
	t.Parallel()
	have := prototypes(t)
	var s symbols
	listed := map[string]bool{}
	for _, sym := range append(s.table(), s.versionTable()...) {
		for name := range strings.FieldsSeq(sym.names) {
			listed[name] = true
			if _, ok := libc[name]; !ok && have[name] == nil {
				t.Errorf("testdata/abi.c has no prototype of %s", name)
			}
		}
	}
	for name := range have {
		if !listed[name] {
			t.Errorf("testdata/abi.c has a prototype of %s, which the table of symbols does not have", name)
		}
	}
}

func TestConstantsAreThoseThatAreChecked(t *testing.T) {
	t.Parallel()
	checked := map[string]string{}
	for _, m := range constantLine.FindAllStringSubmatch(abiText(t), -1) {
		checked[m[1]] = m[2]
	}
	found := 0
	for _, d := range parse(t, "symbols.go").Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			name := v.Names[0].Name
			found++
			if !constant.Compare(evaluate(t, types.ExprString(v.Values[0])), token.EQL, evaluate(t, checked[name])) {
				t.Errorf("%s is %s here and %q in testdata/abi.c", name, types.ExprString(v.Values[0]), checked[name])
			}
			delete(checked, name)
		}
	}
	if found == 0 {
		t.Error("there are no constants: this checks nothing")
	}
	for name := range checked {
		t.Errorf("testdata/abi.c has a constant %s, which the package does not have", name)
	}
}

// evaluate computes a constant expression; what is none is unknown, which equals nothing.
func evaluate(t *testing.T, expression string) constant.Value {
	t.Helper()
	v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, expression)
	if err != nil {
		return constant.MakeUnknown()
	}
	return v.Value
}

// conversions are what the result of call must be converted to. Pointers and unsigned longs are words, as it is.
var conversions = map[string]string{"int": "int32", "long": "int64"}

// Each call gives a function as many arguments as it takes, and converts the result to what it is:
// the upper half of the register that holds an int is anything.
func TestCallsFitTheirPrototypes(t *testing.T) {
	t.Parallel()
	have := prototypes(t)
	maps.Copy(have, map[string][]prototype{"__errno_location": {libc["__errno_location"]}, "__error": {libc["__error"]}})
	fields := fieldNames(t)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		// The innermost conversion or statement around each call.
		var path []ast.Node
		ast.Inspect(parse(t, name), func(n ast.Node) bool {
			if n == nil {
				path = path[:len(path)-1]
				return true
			}
			path = append(path, n)
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fn, ok := c.Fun.(*ast.Ident)
			if !ok || fn.Name != "call" || c.Ellipsis.IsValid() {
				return true // calls through an op: see below
			}
			sel, ok := c.Args[0].(*ast.SelectorExpr)
			if !ok {
				if id, isIdent := c.Args[0].(*ast.Ident); isIdent && id.Name == "method" {
					return true // TLS_client_method or TLS_server_method, of newCtx
				}
				t.Errorf("%s: %s: not a symbol of the table", name, types.ExprString(c))
				return true
			}
			calls++
			for _, symbol := range fields[sel.Sel.Name] {
				for _, p := range have[symbol] {
					if got := len(c.Args) - 1; got != p.parameters {
						t.Errorf("%s: %s: %d arguments, %s takes %d", name, types.ExprString(c), got, symbol, p.parameters)
					}
					if got, want := convertedTo(path), conversions[p.result]; got != want && got != "nothing" {
						t.Errorf("%s: %s gives %s: the result is converted to %q, want %q", name, types.ExprString(c), p.result, got, want)
					}
				}
			}
			if fields[sel.Sel.Name] == nil {
				t.Errorf("%s: %s is not in the table", name, sel.Sel.Name)
			}
			return true
		})
	}
	if calls < 50 {
		t.Errorf("found %d calls: this checks next to nothing", calls)
	}
}

// convertedTo is the integer type to which the last node's value is converted at once, "" for none, and
// "nothing" if the value is not used.
func convertedTo(path []ast.Node) string {
	switch p := path[len(path)-2].(type) {
	case *ast.ExprStmt, *ast.DeferStmt:
		return "nothing"
	case *ast.CallExpr:
		if id, ok := p.Fun.(*ast.Ident); ok && slices.Contains([]string{"int32", "int64", "uint32", "int", "uint"}, id.Name) {
			return id.Name
		}
	}
	return ""
}

// fieldNames gives the names of C that a field of symbols may have the address of.
func fieldNames(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	ast.Inspect(parse(t, "symbols.go"), func(n ast.Node) bool {
		row, ok := n.(*ast.CompositeLit)
		if !ok || row.Type != nil || len(row.Elts) != 3 {
			return true
		}
		names := strings.Trim(types.ExprString(row.Elts[0]), `"`)
		field := row.Elts[1].(*ast.UnaryExpr).X.(*ast.SelectorExpr).Sel.Name
		found[field] = strings.Fields(names)
		return false
	})
	if len(found) == 0 {
		t.Fatal("the table of symbols is not found")
	}
	return found
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
