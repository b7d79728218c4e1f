package domhost

import "testing"

// domhost runs the parts of the language that its README lists.

func TestLanguage(t *testing.T) {
	t.Parallel()
	check(t, []script{
		// The form of a script
		{name: "bare statements", text: `i32 $a; $a = 3; printf("%d\n", $a);`,
			stdout: "3\n"},
		{name: "void main",
			text: `plugin "x/PrintPlugin"; void main() { printf("a\n"); return; printf("b\n"); }`, stdout: "a\n"},
		{name: "status of i32 main", text: `i32 main() { return 7; }`, status: 7},
		{name: "i32 main without return", text: `i32 main() { }`},
		{name: "return ends bare statements", text: `printf("a\n"); return; printf("b\n");`,
			stdout: "a\n"},
		{name: "comments", text: "/* a\n * ; */ printf(\"1\\n\"); // " +
			"printf(\"2\")\nprintf(/* x */ \"3 // 4 /* 5\\n\");",
			stdout: "1\n3 // 4 /* 5\n"},
		{name: "carriage returns", text: "i32 $a;\r\n// b\r\n#define C 2\r\n$a = " +
			"C;\r\nprintf(\"%d\\n\", $a);\r\n", stdout: "2\n"},
		{name: "byte order mark", text: "\xef\xbb\xbfprintf(\"a\\n\");", stdout: "a\n"},
		{name: "built-in plugins on one line",
			text: `plugin "../plugins/print/PrintPlugin"; plugin "builtin:blob"; plugin "b/BlobPlugin"; printf("a\n");`, stdout: "a\n"},

		// Values
		{name: "initial values",
			text: `i32 $i; i64 $l; double $d; string $s[4]; blob $b[4]; printf("%d %ld %g [%s] %d\n", $i, $l, $d, $s, $b.Length);`, stdout: "0 0 0 [] 0\n"},
		{name: "several in one declaration",
			text:   `i32 $a = 1, $b = $a + 1, $c; printf("%d %d %d\n", $a, $b, $c);`,
			stdout: "1 2 0\n"},
		{name: "number forms",
			text:   `printf("%d %d %g %g %ld\n", 0x1F, 7, 1.5, 2e3, 0x1FFFFFFFF);`,
			stdout: "31 7 1.5 2000 8589934591\n"},
		{name: "widening",
			text: `i64 $l = 5; double $d = $l; $l = 2147483647; $l = $l + 1; printf("%ld %g\n", $l, $d / 2);`, stdout: "2147483648 2.5\n"},
		{name: "narrowing that fits",
			text: `i64 $l = 5; i32 $i = $l; double $d = -2.9; i32 $j = $d; printf("%d %d\n", $i, $j);`, stdout: "5 -2\n"},
		{name: "string escapes", text: `printf("%s", "a\tb\\\"\x41\x4a\'c\r\n");`,
			stdout: "a\tb\\\"AJ'c\r\n"},
		{name: "zero byte in a string",
			text:   `string $s = "a\0b"; printf("%s|%d\n", $s, $s.Length);`,
			stdout: "a\x00b|3\n"},
		{name: "raw line break in a string", text: "string $s = \"a\nb\"; " +
			"printf(\"%d\\n\", $s.Length); $s.Length / 0;", stdout: "3\n",
			stderr: "script.dom:2: division by zero", status: 1},
		{name: "UTF-8 counts bytes",
			text:   `string $s = "é€"; printf("%s %d\n", $s, $s.Length);`,
			stdout: "é€ 5\n"},

		// Capacity
		{name: "= grows, := cuts",
			text: `string $s[5] = "Hello"; $s = "Hello, world"; printf("%s\n", $s); $s := "Goodbye"; printf("%s\n", $s);`, stdout: "Hello, world\nGoodb\n"},
		{name: ":= below the capacity",
			text:   `string $s[5]; $s := "abc"; printf("%s %d\n", $s, $s.Length);`,
			stdout: "abc 3\n"},
		{name: ":= of a blob",
			text:   `blob $b[2]; $b := blob.FromText("abc"); printf("%d\n", $b.Length);`,
			stdout: "2\n"},
		{name: ":= leaves its source whole",
			text: `string $a = "abcdef"; string $b[2]; $b := $a; printf("%s %s\n", $a, $b);`, stdout: "abcdef ab\n"},
		{name: ":= without a capacity, and of a number",
			text:   `string $s; $s := "abc"; i32 $i; $i := 4; printf("%s %d\n", $s, $i);`,
			stdout: "abc 4\n"},
		{name: "capacity from a definition", text: "#define N 3\nstring $s[N + 1]; $s := " +
			"\"abcdef\"; printf(\"%s\\n\", $s);", stdout: "abcd\n"},

		// Blobs
		{name: "elements",
			text: `blob $b[4]; $b[0] = 1; $b[2] = 255; printf("%d %d %d %d\n", $b.Length, $b[0], $b[1], $b[2]);`, stdout: "3 1 0 255\n"},
		{name: "element within the length",
			text: `blob $b = blob.FromText("abc"); $b[1] = 66; printf("%s\n", blob.ToText($b));`, stdout: "aBc\n"},
		{name: "element operators",
			text: `blob $b[2]; $b[0] += 5; $b[0]++; --$b[0]; i32 $o = $b[0]++; printf("%d %d %d\n", $o, $b[0], $b.Length);`, stdout: "5 6 1\n"},
		{name: "a copy is a copy",
			text: `blob $a[3]; $a[0] = 1; blob $b = $a; $b[0] = 2; printf("%d %d\n", $a[0], $b[0]);`, stdout: "1 2\n"},
		{name: "a literal is not changed",
			text: `for (i32 $i = 0; $i < 2; $i++) { blob $b = blob.FromText("a"); $b[0]++; printf("%d ", $b[0]); string $s = "x"; $s += "y"; printf("%s\n", $s); }`, stdout: "98 xy\n98 xy\n"},
		{name: "element of a call", text: `printf("%d\n", blob.FromText("A")[0]);`,
			stdout: "65\n"},
		{name: "text and blob",
			text:   `printf("%s %d\n", blob.ToText(blob.FromText("a\0b")) == "a\0b", 0);`,
			stderr: "script.dom:1: printf: %s takes a string, argument 2 is an i32",
			status: 1},
		{name: "comparing bytes",
			text: `printf("%d%d%d%d\n", "a" == "a", "a" == "a\0", "a" != "b", blob.FromText("a") == blob.FromText("a"));`, stdout: "1011\n"},
		{name: "joining",
			text: `string $s = "a" + "b" + "c"; $s += $s; blob $b = blob.FromText($s) + blob.FromText("!"); $b += $b; printf("%s\n", blob.ToText($b));`, stdout: "abcabc!abcabc!\n"},
		{name: "joining many times",
			text: `string $s; for (i32 $i = 0; $i < 100000; $i++) { $s += "ab"; } printf("%d\n", $s.Length);`, stdout: "200000\n"},

		// Operators
		{name: "precedence",
			text: `printf("%d %d %d %d\n", 1 + 2 * 3 - 4 / 2 % 3, (1 + 2) * 3, 10 - 3 - 2, -2 * -3);`, stdout: "5 9 5 6\n"},
		{name: "comparison below arithmetic",
			text:   `printf("%d %d %d\n", 1 + 1 == 2, 3 > 2 == 1, 1 < 2 && 2 < 1 || 1);`,
			stdout: "1 1 1\n"},
		{name: "all comparisons",
			text: `printf("%d%d%d%d%d%d\n", 1 < 1, 1 <= 1, 1 > 1, 1 >= 1, 1 == 1, 1 != 1);`, stdout: "010110\n"},
		{name: "comparisons of mixed types",
			text:   `i64 $l = 3000000000; printf("%d%d%d\n", $l > 1, 1.5 > 1, 2 == 2.0);`,
			stdout: "111\n"},
		{name: "division and remainder as in C",
			text:   `printf("%d %d %g\n", -7 / 2, -7 % 2, -7 / 2.0);`,
			stdout: "-3 -1 -3.5\n"},
		{name: "remainder that traps in C",
			text:   `i64 $m = -9223372036854775807; $m--; printf("%ld\n", $m % -1);`,
			stdout: "0\n"},
		{name: "not and minus", text: `printf("%d %d %d %g\n", !0, !5, -(-3), -1.5);`,
			stdout: "1 0 3 -1.5\n"},
		{name: "and, or leave out their right side",
			text: `printf("%d %d\n", 0 && 1 / 0, 1 || 1 / 0);`, stdout: "0 1\n"},
		{name: "assignment operators",
			text: `i32 $a = 10; $a += 5; $a -= 3; $a *= 4; $a /= 5; $a %= 5; printf("%d\n", $a);`, stdout: "4\n"},
		{name: "assignment is a value",
			text: `i32 $a; i32 $b; $a = $b = 4; if (($a = 0) == 0) printf("%d %d\n", $a, $b);`, stdout: "0 4\n"},
		{name: "steps",
			text: `i32 $a = 1; printf("%d ", $a++); printf("%d ", ++$a); printf("%d ", $a--); printf("%d\n", --$a); double $d; $d++; printf("%g\n", $d);`, stdout: "1 3 3 1\n1\n"},
		{name: "compound keeps the type",
			text: `i32 $a = 7; $a *= 1.5; printf("%d\n", $a);`, stdout: "10\n"},

		// Control flow
		{name: "if and else",
			text: `for (i32 $i = 0; $i < 3; $i++) if ($i == 0) printf("a"); else if ($i == 1) { printf("b"); } else printf("c\n");`, stdout: "abc\n"},
		{name: "while with break and continue",
			text: `i32 $i; while (1) { $i++; if ($i == 2) continue; if ($i > 4) break; printf("%d", $i); } printf("\n");`, stdout: "134\n"},
		{name: "for without parts",
			text: `i32 $i; for (;;) { if (++$i == 3) break; } for ($i = 5; $i < 7;) $i++; printf("%d\n", $i);`, stdout: "7\n"},
		{name: "continue runs the step",
			text: `for (i32 $i = 0; $i < 3; $i++) { if ($i < 2) continue; printf("%d\n", $i); }`, stdout: "2\n"},
		{name: "break leaves one loop",
			text: `for (i32 $i = 0; $i < 2; $i++) { while (1) { break; } printf("%d", $i); } printf("\n");`, stdout: "01\n"},
		{name: "blocks hide names",
			text: `i32 $a = 1; { i32 $a = 2; { string $a = "3"; printf("%s", $a); } printf("%d", $a); } printf("%d\n", $a);`, stdout: "321\n"},
		{name: "a declaration in a loop starts anew",
			text: `for (i32 $i = 0; $i < 3; $i++) { string $s[4]; i32 $n; $s += "x"; $n++; printf("%s%d ", $s, $n); } printf("\n");`, stdout: "x1 x1 x1 \n"},
		{name: "empty statements",
			text:   `;; for (i32 $i = 0; $i < 3; $i++); while (0); { } printf("a\n");`,
			stdout: "a\n"},

		// Functions
		{name: "functions",
			text: `i32 add(i32 $a, i32 $b) { return $a + $b; } void say(string $s) { printf("%s\n", $s); } void main() { say("sum"); printf("%d\n", add(2, add(3, 4))); }`, stdout: "sum\n9\n"},
		{name: "functions beside bare statements",
			text: `printf("%d\n", two()); i32 two() { return 2; }`, stdout: "2\n"},
		{name: "recursion",
			text: `i64 fib(i64 $n) { if ($n < 2) { return $n; } return fib($n - 1) + fib($n - 2); } printf("%ld\n", fib(15));`, stdout: "610\n"},
		{name: "arguments are copies",
			text: `void f(blob $b, i32 $i) { $b[0] = 9; $i = 9; } blob $b[1]; $b[0] = 1; i32 $i = 1; f($b, $i); printf("%d %d\n", $b[0], $i);`, stdout: "1 1\n"},
		{name: "arguments and results are converted",
			text: `double half(double $d) { return $d / 2; } i32 whole(double $d) { return $d; } printf("%g %d\n", half(3), whole(2.5));`, stdout: "1.5 2\n"},
		{name: "return from loops",
			text: `i32 f() { while (1) { for (;;) { return 3; } } } printf("%d\n", f());`, stdout: "3\n"},

		// Definitions
		{name: "definitions", text: "#define A 1 // one\n #define B (A + A) /* two */\n" +
			"#define S \"A\"\n#define\tNONE\nprintf(\"%d %s A\\n\" NONE, B * 2, S);",
			stdout: "4 A A\n"},
		{name: "the later definition holds", text: "#define A 1\ni32 $a = A;\n#define A " +
			"2\nprintf(\"%d %d\\n\", $a, A);", stdout: "1 2\n"},
		{name: "variables are not replaced", text: "#define a 5\ni32 $a = a; " +
			"printf(\"%d\\n\", $a);", stdout: "5\n"},

		// printf
		{name: "conversions",
			text: `printf("%d|%i|%u|%x|%X|%o|%c|%s|%%|%f|%e|%g|%.2f\n", -1, 2, -1, 255, 255, 8, 65, "s", 1.5, 1.5, 1.5, 2.345);`, stdout: "-1|2|4294967295|ff|FF|10|A|s|%|1.500000|1.500000e+00|1.5|2.35\n"},
		{name: "long conversions",
			text:   `i64 $l = -1; printf("%ld %lld %lu %lx %ld\n", $l, $l, $l, $l, 5);`,
			stdout: "-1 -1 18446744073709551615 ffffffffffffffff 5\n"},
		{name: "widths and precisions",
			text: `printf("[%5d][%-5d][%05d][%+d][%8.3f][%5s][%-5s][%.2s][%#x][%3c]\n", 42, 42, 42, 42, 3.14159, "ab", "ab", "abc", 255, 65);`, stdout: "[   42][42   ][00042][+42][   3.142][   ab][ab   ][ab][0xff][  A]\n"},
		{name: "result of printf", text: `printf("%d\n", printf("abc\n"));`,
			stdout: "abc\n4\n"},
		{name: "percent only", text: `printf("%%");`, stdout: "%"},
	}, nil)
	check(t, []script{
		{name: "lines of a -D are not the script's", text: "i32 $a = A;\n$a / 0;",
			stderr: "script.dom:2: division by zero", status: 1},
	}, nil, "-D", "A=1\n+\n1")
}
