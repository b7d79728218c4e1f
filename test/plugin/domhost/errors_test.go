package domhost

import (
	"fmt"
	"strings"
	"testing"
)

// An error names the line of the script.

func TestRuntimeErrorsNameTheLine(t *testing.T) {
	t.Parallel()
	var scripts []script
	for _, c := range []struct{ name, text, reason string }{
		{"division by zero", `1 / 0;`, "division by zero"},
		{"remainder by zero", `i32 $a; 1 % $a;`, "division by zero"},
		{"division of doubles by zero", `1 / 0.0;`, "division by zero"},
		{"i32 overflow", `i32 $a = 2147483647; $a++;`, "i32 overflow: 2147483647 + 1"},
		{"i32 underflow", `i32 $a = -2147483647; $a -= 2;`,
			"i32 overflow: -2147483647 - 2"},
		{"i64 overflow", `i64 $a = 9223372036854775807; $a = $a * 2;`,
			"i64 overflow: 9223372036854775807 * 2"},
		{"negation overflow", `i32 $a = -2147483648; -$a;`,
			"i32 overflow: 0 - -2147483648"},
		{"i64 division overflow", `i64 $a = -9223372036854775807; $a--; $a / -1;`,
			"i64 overflow: -9223372036854775808 / -1"},
		{"too large for i32", `i32 $a = 2147483648;`, "$a: 2147483648 does not fit an i32"},
		{"double too large", `i64 $a; $a = 1e300;`, "$a: 1e+300 does not fit an i64"},
		{"string to number", `i32 $a = "1";`, "$a: expected an i32, got a string"},
		{"number to string", `string $s; $s = 1;`, "$s: expected a string, got an i32"},
		{"string to blob", `blob $b[4]; $b = "a";`, "$b: expected a blob, got a string"},
		{"adding a number to a string", `"a" + 1;`,
			"+ does not work on a string and an i32"},
		{"subtracting strings", `"a" - "b";`, "- does not work on strings"},
		{"ordering strings", `"a" <= "b";`, "<= does not work on strings"},
		{"remainder of doubles", `1.5 % 2;`, "% needs integers, got a double"},
		{"negating a string", `-"a";`, "- needs a number, got a string"},
		{"string as a condition", `if ("a") { }`,
			"a condition must be a number, got a string"},
		{"blob as a condition", `blob $b; while ($b) { }`, "a condition must be a " +
			"number, got a blob"},
		{"not of a string", `!"a";`, "a condition must be a number, got a string"},
		{"length of a number", `i32 $a; $a.Length;`, "only a string or a blob has a " +
			"Length, not an i32"},
		{"index of a string", `string $s = "a"; $s[0];`, "only a blob has elements, not " +
			"a string"},
		{"assigning to an element of a string", `string $s = "a"; $s[0] = 1;`,
			"only a blob has elements; $s is a string"},
		{"read beyond the length", `blob $b[4]; $b[0];`, "the index 0 is outside of a " +
			"blob of 0 bytes"},
		{"read before the start", `blob $b[4]; $b[3] = 1; $b[-1];`, "the index -1 is " +
			"outside of a blob of 4 bytes"},
		{"write beyond the capacity", `blob $b[4]; $b[4] = 1;`, "the index 4 is outside " +
			"of $b, which has room for 4 bytes"},
		{"index that is no number", `blob $b[4]; $b["a"] = 1;`, "the index of $b: " +
			"expected an i64, got a string"},
		{"element that is no byte", `blob $b[4]; $b[0] = 256;`, "$b[0]: 256 is not a " +
			"byte (0 to 255)"},
		{"element below zero", `blob $b[4]; $b[0]--;`,
			"$b[0]: -1 is not a byte (0 to 255)"},
		{"capacity of nothing", `string $s[0];`, "the capacity of $s must be 1 to " +
			"67108864, got 0"},
		{"huge capacity", `blob $b[67108865];`, "the capacity of $b must be 1 to " +
			"67108864, got 67108865"},
		{"capacity that is no number", `blob $b["a"];`, "the capacity of $b: expected an " +
			"i64, got a string"},
		{"huge string", `string $s = "0123456789abcdef"; while (1) { $s += $s; }`,
			"a string of 134217728 bytes is larger than 67108864"},
		{"unknown function", `nothing(1);`, "unknown function nothing"},
		{"unknown namespace", `sql.Open(1);`, "unknown function sql.Open"},
		{"too few arguments", `void f(i32 $a, i32 $b) { } f(1);`,
			"f: takes 2 arguments, got 1"},
		{"too many arguments", `void f(i32 $a) { } f(1, 2);`, "f: takes 1 argument, got 2"},
		{"argument of the wrong type", `void f(i32 $a, string $b) { } f(1, 2);`,
			"f: argument 2 ($b): expected a string, got an i32"},
		{"no return", `i32 f() { } f();`, "f ended without a return"},
		{"result of the wrong type", `i32 f() { return "a"; } f();`, "the result of f: " +
			"expected an i32, got a string"},
		{"nothing as a value", `void f() { } i32 $a = f();`,
			"$a: expected an i32, got nothing"},
		{"status out of range", `i32 main() { return 256; }`, "main returned 256; an " +
			"exit status is 0 to 255"},
		{"endless recursion", `void f() { f(); } f();`, "calls are nested too deeply " +
			"(more than 4000 levels of calls, blocks and expressions)"},
		{"blob.FromText of a number", `blob.FromText(1);`, "blob.FromText: argument 1 " +
			"(text) must be a string, got an i32"},
		{"blob.ToText of a string", `blob.ToText("a");`, "blob.ToText: argument 1 (blob) " +
			"must be a blob, got a string"},
		{"printf without a format", `printf();`, "printf: takes at least 1 arguments " +
			"(format, ...), got 0"},
		{"printf with a number as format", `printf(1);`, "printf: argument 1 (format) " +
			"must be a string, got an i32"},
		{"printf, missing argument", `printf("%d %d", 1);`, "printf: the format needs " +
			"more than the 1 argument given"},
		{"printf, surplus argument", `printf("%d", 1, 2);`, "printf: 2 arguments, but " +
			"the format uses 1"},
		{"printf, i64 with %d", `i64 $a; printf("%d", $a);`, "printf: %d takes an i32, " +
			"argument 2 is an i64; an i64 needs an l, as in %ld"},
		{"printf, blob with %s", `blob $b; printf("%s", $b);`, "printf: %s takes a " +
			"string, argument 2 is a blob; blob.ToText makes a string of it"},
		{"printf, i32 with %f", `printf("%f", 1);`, "printf: %f takes a double, argument " +
			"2 is an i32"},
		{"printf, double with %d", `printf("%d", 1.0);`, "printf: %d takes an i32, " +
			"argument 2 is a double"},
		{"printf, string with %ld", `printf("%ld", "a");`, "printf: %ld takes an i64, " +
			"argument 2 is a string"},
		{"printf, unknown conversion", `printf("%n", 1);`, "printf: unknown conversion %n"},
		{"printf, l with s", `printf("%ls", "a");`, "printf: unknown conversion %ls"},
		{"printf, half a conversion", `printf("%5.");`, "printf: the format ends in the " +
			"middle of a %"},
		{"printf, huge width", `printf("%99999999999d", 1);`, "printf: a width or " +
			"precision is more than 4096"},
	} {
		scripts = append(scripts, script{
			name: c.name, text: "// one\n/* two */\n" + c.text,
			stderr: "script.dom:3: " + c.reason, status: 1,
		})
	}
	check(t, scripts, nil)
}

func TestSyntaxErrorsNameTheLineAndRunNothing(t *testing.T) {
	t.Parallel()
	nested := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	var scripts []script
	for _, c := range []struct{ name, text, reason string }{
		{"missing semicolon", "i32 $a = 1\nprintf(\"b\");", "2: expected ; after the " +
			"declaration, got printf"},
		{"missing semicolon of a statement", "printf(\"b\")\n\n", "2: expected ; after " +
			"the statement, got the end of the script"},
		{"missing parenthesis", `printf("b";`, "2: expected ) after the arguments, got ;"},
		{"missing brace", "void main() {\n\n", "2: the { has no }"},
		{"surplus brace", `}`, "2: expected an expression, got }"},
		{"undeclared variable", `$a = 1;`, "2: $a is not declared"},
		{"variable out of its block", `{ i32 $a; } $a = 1;`, "2: $a is not declared"},
		{"variable of a for", `for (i32 $i = 0; $i < 1; $i++) { } $i = 1;`,
			"2: $i is not declared"},
		{"variable of another function", `void f() { i32 $a; } void main() { $a = 1; }`,
			"2: $a is not declared"},
		{"variable used before its own value", `i32 $a = $a;`, "2: $a is not declared"},
		{"declared twice", "i32 $a;\nstring $a;", "3: $a is already declared here"},
		{"parameter twice", `void f(i32 $a, i32 $a) { }`, "2: $a is already declared here"},
		{"void variable", `void $a;`, "2: a variable cannot be void"},
		{"capacity of an i32", `i32 $a[4];`,
			"2: $a: only a string or a blob has a capacity"},
		{"declaration without a name", `i32 a;`, "2: expected a variable after i32, got a"},
		{"word that is nothing", `hello;`,
			"2: unknown word hello (variables begin with $)"},
		{"assigning to a value", `1 = 2;`, "2: only a variable or an element of a blob " +
			"can be assigned to"},
		{"stepping a value", `5++;`, "2: ++ needs a variable"},
		{"unknown member", `string $s; $s.Size;`,
			"2: expected Length after the dot, got Size"},
		{"namespace without function", `tls.;`, "2: expected a function after tls., got ;"},
		{"break outside of a loop", `if (1) break;`, "2: break outside of a loop"},
		{"continue outside of a loop", `continue;`, "2: continue outside of a loop"},
		{"break in a function called in a loop", `void f() { break; } while (1) { f(); }`,
			"2: break outside of a loop"},
		{"else without if", `else { }`, "2: else cannot stand here"},
		{"declaration as the body of an if", `if (1) i32 $a;`, "2: i32 cannot stand here"},
		{"plugin inside of a block", `{ plugin "a"; }`, "2: plugin cannot stand here"},
		{"plugin without a path", `plugin a;`, "2: plugin needs a path in quotes, got a"},
		{"plugin with an empty path", `plugin "";`, "2: the plugin's path is empty or " +
			"has a zero byte"},
		{"value from a void function", `void f() { return 1; }`, "2: f returns nothing"},
		{"no value from a function", `i32 f() { return; }`, "2: f must return an i32"},
		{"function twice", "void f() { }\ni32 f() { return 1; }", "3: f is already " +
			"defined in line 2"},
		{"main with parameters", `i32 main(i32 $a) { return 0; }`, "2: main must be void " +
			"main() or i32 main()"},
		{"string main", `string main() { return ""; }`, "2: main must be void main() or " +
			"i32 main()"},
		{"statements beside main", "void main() { }\nprintf(\"b\");",
			"3: a script with main has no statements outside of functions"},
		{"global variable", "i32 $a;\nvoid main() { }", "2: a script with main has no " +
			"statements outside of functions"},
		{"function inside of a function", `void main() { void f() { } }`,
			"2: a variable cannot be void"},
		{"open string", "string $s = \"abc;\n\n", "2: the string has no closing quote"},
		{"open comment", "/* abc\n\n", "2: the comment has no end"},
		{"unknown escape", `string $s = "\q";`, `2: unknown escape \q`},
		{"octal escape", `string $s = "\012";`,
			`2: octal escapes are not known; write \xNN`},
		{"empty escape", `string $s = "\xg";`, `2: \x needs one or two hexadecimal digits`},
		{"bad number", `i32 $a = 12ab;`, "2: bad number 12ab"},
		{"octal number", `i32 $a = 012;`, "2: bad number 012: octal numbers are not known"},
		{"huge number", `i64 $a = 9223372036854775808;`,
			"2: the number 9223372036854775808 is out of range"},
		{"huge double", `double $a = 1e999;`, "2: the number 1e999 is out of range"},
		{"half a hexadecimal number", `i32 $a = 0x;`, "2: bad number 0x"},
		{"unknown sign", `i32 $a = 1 ? 2 : 3;`, "2: unknown sign ?"},
		{"unknown byte", "i32 \x80;", "2: unknown byte 0x80"},
		{"dollar alone", `$ = 1;`, "2: a variable's name must follow $"},
		{"unknown directive", `#include "a"`, "2: after # only define NAME value is known"},
		{"definition with parameters", `#define F(x) x`, "2: #define F: a blank must " +
			"follow the name (definitions take no parameters)"},
		{"definition without a name", `#define 1 2`, "2: #define needs a name of " +
			"letters, digits and _"},
		{"definition of itself", "#define A B\n#define B A\ni32 $a = A;",
			"4: #define A needs itself"},
		{"definitions that multiply", definitionsThatMultiply(), "32: the script is " +
			"longer than 500000 words and signs"},
		{"many definitions inside of each other", definitionsInARow(),
			"72: #define D5: more than 64 definitions inside of each other"},
		{"deep parentheses", "i32 $a = " + nested("(", "1", ")", 100000) + ";",
			"2: more than 400 levels inside of each other"},
		{"deep blocks", nested("{", "", "}", 100000), "2: more than 400 levels inside of " +
			"each other"},
		{"many signs", "i32 $a = " + nested("!", "1", "", 100000) + ";",
			"2: more than 400 levels inside of each other"},
		{"a long chain", "i32 $a = 1" + nested("+1", "", "", 100000) + ";",
			"2: more than 400 levels inside of each other"},
		{"a long chain of else", "if (0) ;" + nested(" else if (0) ;", "", "", 50000),
			"2: more than 400 levels inside of each other"},
	} {
		scripts = append(scripts, script{
			name: c.name, text: "// one\n" + c.text,
			stderr: "script.dom:" + c.reason, status: 2,
		})
	}
	scripts = append(scripts, script{
		name: "nothing runs", text: "printf(\"this must not appear\");\n$a;",
		stderr: "script.dom:2: $a is not declared", status: 2,
	})
	check(t, scripts, nil)
}

// definitionsThatMultiply returns a script of 30 lines that would expand to 2^29 words.
func definitionsThatMultiply() string {
	var b strings.Builder
	b.WriteString("#define A0 x\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&b, "#define A%d A%d A%d\n", i, i-1, i-1)
	}
	return b.String() + "A29"
}

// definitionsInARow returns 70 definitions. Each but the first uses the one before.
func definitionsInARow() string {
	var b strings.Builder
	b.WriteString("#define D0 1\n")
	for i := 1; i < 70; i++ {
		fmt.Fprintf(&b, "#define D%d D%d\n", i, i-1)
	}
	return b.String() + "D69"
}
