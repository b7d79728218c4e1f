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
	"strconv"
	"strings"
	"testing"
)

// Go's compiler cannot check the calls into C. So they are checked in two steps. testdata/abi.c has
// the C type of each symbol and the value of each constant. A C compiler compares that file with
// OpenSSL's headers (make libssl-matrix). These tests compare the package with abi.c.

// A prototype is the type of a C function, from a line FUNCTION(...) of abi.c.
type prototype struct {
	result     string
	parameters int
}

var (
	functionLine = regexp.MustCompile(`(?m)^FUNCTION\((.+?), (\w+), \((.*)\)\)$`)
	constantLine = regexp.MustCompile(`(?m)^CONSTANT\((\w+), (.+), (\w+)\)$`)
)

// prototypes reads abi.c. If the type of a function differs between versions of OpenSSL, the
// function has several prototypes.
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

// libc has the symbols that the package takes from libc. abi.c has only those of OpenSSL.
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
			t.Errorf("testdata/abi.c has a prototype of %s, which the table of "+
				"symbols does not have", name)
		}
	}
}

// Each constant of symbols.go has the value that abi.c checks, and abi.c checks no other constants.
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
			if !constant.Compare(evaluate(t, types.ExprString(v.Values[0])), token.EQL,
				evaluate(t, checked[name])) {
				t.Errorf("%s is %s in symbols.go and %q in testdata/abi.c", name,
					types.ExprString(v.Values[0]), checked[name])
			}
			delete(checked, name)
		}
	}
	if found == 0 {
		t.Error("symbols.go has no constants: the test shows nothing")
	}
	for name := range checked {
		t.Errorf("testdata/abi.c has a constant %s, which the package does not have", name)
	}
}

// evaluate computes a constant expression. For any other expression it returns the value Unknown.
// constant.Compare finds no value equal to Unknown.
func evaluate(t *testing.T, expression string) constant.Value {
	t.Helper()
	v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, expression)
	if err != nil {
		return constant.MakeUnknown()
	}
	return v.Value
}

// The function `call` returns a whole word. conversions has the conversions that this word needs,
// by the type in C. A pointer or an unsigned long fills a word, and needs no conversion.
var conversions = map[string]string{"int": "int32", "long": "int64"}

// Each call passes as many arguments as the function takes, and converts the result to the
// function's type. After a function that returns int, the upper half of the register is garbage.
func TestCallsFitTheirPrototypes(t *testing.T) {
	t.Parallel()
	have := prototypes(t)
	maps.Copy(have, map[string][]prototype{"__errno_location": {libc["__errno_location"]},
		"__error": {libc["__error"]}})
	fields := fieldNames(t)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	// The keys are the calls that pass their arguments in a slice. A value is the type to which
	// the call's result is converted.
	byOperation := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		// path has the present node, and all nodes around it, the outermost first.
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
			if !ok || fn.Name != "call" {
				return true
			}
			given := len(c.Args) - 1
			if n, ok := fixed(c); ok {
				given = n
			} else if c.Ellipsis.IsValid() {
				byOperation[types.ExprString(c)] = convertedTo(path)
				return true // see TestOperationsFitTheirPrototypes
			}
			for _, arg := range c.Args[1:] {
				if lit, ok := arg.(*ast.BasicLit); ok && lit.Value != "0" &&
					lit.Value != "1" {
					t.Errorf("%s: %s: the number %s must be a constant "+
						"with a name, so that testdata/abi.c can "+
						"check its value", name,
						types.ExprString(c), lit.Value)
				}
			}
			sel, ok := c.Args[0].(*ast.SelectorExpr)
			if !ok {
				if id, isIdent := c.Args[0].(*ast.Ident); isIdent &&
					id.Name == "method" {
					// newCtx calls one of these two functions.
					for _, symbol := range []string{"TLS_client_method",
						"TLS_server_method"} {
						want := prototype{"const SSL_METHOD *",
							len(c.Args) - 1}
						if p := have[symbol]; len(p) != 1 || p[0] != want ||
							convertedTo(path) != "" {
							t.Errorf("%s: %s: the prototypes of %s "+
								"are %+v; want %+v, and no "+
								"conversion of the result", name,
								types.ExprString(c), symbol, p,
								want)
						}
					}
					return true
				}
				t.Errorf("%s: %s does not call a symbol of the table", name,
					types.ExprString(c))
				return true
			}
			calls++
			for _, symbol := range fields[sel.Sel.Name] {
				for _, p := range have[symbol] {
					if given != p.parameters {
						t.Errorf("%s: %s has %d arguments, but %s takes %d",
							name, types.ExprString(c), given, symbol,
							p.parameters)
					}
					if got, want := convertedTo(path),
						conversions[p.result]; got != want &&
						got != "nothing" {
						t.Errorf("%s: %s gives %s: the result is "+
							"converted to %q, want %q", name,
							types.ExprString(c), p.result, got, want)
					}
				}
			}
			if fields[sel.Sel.Name] == nil {
				t.Errorf("%s calls %s, which is not in the table of symbols", name,
					sel.Sel.Name)
			}
			return true
		})
	}
	if calls < 50 {
		t.Errorf("found %d calls, want 50 or more: the test shows little", calls)
	}
	want := map[string]string{
		"call(o.fn, o.args...)":                 "int32",
		"call(sym.sslGetError, o.errArg[:]...)": "int32",
	}
	if !maps.Equal(byOperation, want) {
		t.Errorf("the calls with their arguments in a slice are %v, but "+
			"TestOperationsFitTheirPrototypes checks %v", byOperation, want)
	}
}

// fixed returns the number of arguments of a call whose arguments are a slice of constant length,
// such as call(t.fn, t.arg[:2]...).
func fixed(c *ast.CallExpr) (n int, ok bool) {
	if !c.Ellipsis.IsValid() || len(c.Args) != 2 {
		return 0, false
	}
	s, ok := c.Args[1].(*ast.SliceExpr)
	if !ok || s.Low != nil {
		return 0, false
	}
	high, ok := s.High.(*ast.BasicLit)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(high.Value)
	return n, err == nil
}

// The calls of an op have their arguments in a slice, and all return an int.
func TestOperationsFitTheirPrototypes(t *testing.T) {
	t.Parallel()
	have, fields := prototypes(t), fieldNames(t)
	operations := OperationArguments()
	if len(operations) != 5 {
		t.Errorf("there are %d operations, want 5: %v", len(operations), operations)
	}
	for field, n := range operations {
		for _, symbol := range fields[field] {
			for _, p := range have[symbol] {
				if p != (prototype{"int", n}) {
					t.Errorf("%s is called with %d arguments, and must "+
						"return int; its prototype is %+v",
						symbol, n, p)
				}
			}
		}
		if fields[field] == nil {
			t.Errorf("an op calls %s, which is not in the table of symbols", field)
		}
	}
}

// callbacks are the functions that OpenSSL calls, by the name of their type in abi.c.
var callbacks = map[string]struct{ file, function string }{
	"verify_cb":      {"verify.go", "recordVerify"},
	"new_session_cb": {"resume.go", "keepSession"},
	"keylog_cb":      {"keylog.go", "logSecret"},
}

var callbackLine = regexp.MustCompile(`(?m)^typedef (\w+) (\w+_cb)\((.*)\);$`)

// A function that OpenSSL calls has as many parameters as OpenSSL passes. All of them are of type
// uintptr. If a parameter is an int in C, the function converts it to int32, because the upper half
// of its register is garbage.
func TestCallbacksFitTheirTypes(t *testing.T) {
	t.Parallel()
	lines := callbackLine.FindAllStringSubmatch(abiText(t), -1)
	if len(lines) != len(callbacks) {
		t.Fatalf("testdata/abi.c has %d types of callbacks, and this test knows %d",
			len(lines), len(callbacks))
	}
	for _, m := range lines {
		t.Run(m[2], func(t *testing.T) {
			c := callbacks[m[2]]
			checkCallback(t, c.file, c.function, strings.Split(m[3], ", "))
		})
	}
}

func checkCallback(t *testing.T, file, function string, parameters []string) {
	found := false
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		f, ok := n.(*ast.FuncDecl)
		if !ok || f.Name.Name != function {
			return true
		}
		found = true
		var names []string
		for _, field := range slices.Concat(f.Type.Params.List, f.Type.Results.List) {
			if types.ExprString(field.Type) != "uintptr" {
				t.Errorf("%s has a parameter or result of type %s, want uintptr",
					function, types.ExprString(field.Type))
			}
			for _, name := range field.Names {
				names = append(names, name.Name)
			}
		}
		if len(names) != len(parameters)+1 {
			t.Fatalf("the parameters and results are %q, but in C %q and one result",
				names, parameters)
		}
		for i, p := range parameters {
			if !strings.HasPrefix(p, "int ") {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr: // int32(x)
					return types.ExprString(n) != "int32("+names[i]+")"
				case *ast.AssignStmt:
					// "result = x" needs no conversion of x, because OpenSSL
					// gets the whole word back.
					return types.ExprString(n.Lhs[0]) != names[len(names)-1]
				case *ast.Ident:
					if n.Name == names[i] {
						t.Errorf("%s is an int in C, and is not "+
							"converted to int32", n.Name)
					}
				}
				return true
			})
		}
		return false
	})
	if !found {
		t.Errorf("%s has no function %s", file, function)
	}
}

// convertedTo says what happens to the value of the last node of path. If the value is converted to
// an integer type, convertedTo returns the name of this type. If the value is not used, convertedTo
// returns "nothing". Otherwise it returns "".
func convertedTo(path []ast.Node) string {
	switch p := path[len(path)-2].(type) {
	case *ast.ExprStmt, *ast.DeferStmt:
		return "nothing"
	case *ast.CallExpr:
		if id, ok := p.Fun.(*ast.Ident); ok &&
			slices.Contains([]string{"int32", "int64", "uint32", "int",
				"uint"}, id.Name) {
			return id.Name
		}
	}
	return ""
}

// fieldNames returns, for each field of symbols, the C names of the functions whose address the
// field may have.
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
