package rpc_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/rpc"
	"tlsd/rpc/wire"
)

// openRPC has the members of OpenRPC 1.3 that tlsd uses.
type openRPC struct {
	OpenRPC string `json:"openrpc"`
	Info    struct {
		Title, Version, Description string
	} `json:"info"`
	Methods []struct {
		Name           string
		Summary        string
		ParamStructure string
		Params         []descriptor
		Result         *descriptor
	} `json:"methods"`
}

type descriptor struct {
	Name        string
	Description string
	Required    bool
	Schema      map[string]any
}

// discovered returns the document of rpc.discover.
func discovered(t *testing.T) (doc openRPC) {
	t.Helper()
	p := newCaller(t)
	p.line(`{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`)
	var r struct{ Result json.RawMessage }
	if err := json.Unmarshal([]byte(p.answer()), &r); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(r.Result)))
	d.DisallowUnknownFields() // any other member is an error
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// rpc.discover returns an OpenRPC document that describes each method, its parameters and its
// result.
func TestDiscoverIsAnOpenRPCDocument(t *testing.T) {
	t.Parallel()
	doc := discovered(t)
	if !regexp.MustCompile(`^1\.3\.\d+$`).MatchString(doc.OpenRPC) {
		t.Errorf("the document's member openrpc is %q, want 1.3 and a patch number",
			doc.OpenRPC)
	}
	if doc.Info.Title != "tlsd" || doc.Info.Version != "1.2.3-test" {
		t.Errorf("the document's member info is %+v, want the title tlsd and the version "+
			"1.2.3-test", doc.Info)
	}
	types := []string{"integer", "string", "array", "object", "null"}
	keys := []string{"title", "type", "const", "items", "minimum", "maximum", "minLength",
		"maxLength", "contentEncoding", "description"}
	// schema checks one schema of the document. Its first parameter names the schema.
	schema := func(where string, s map[string]any) {
		if len(s) == 0 {
			t.Errorf("%s has no schema", where)
		}
		for k := range s {
			if !slices.Contains(keys, k) {
				t.Errorf("%s: the schema has the keyword %q, which this test "+
					"does not list", where, k)
			}
		}
		list, many := s["type"].([]any)
		if !many && s["type"] != nil {
			list = []any{s["type"]}
		}
		for _, typ := range list {
			if name, _ := typ.(string); !slices.Contains(types, name) {
				t.Errorf("%s: the schema has the type %v, which this test does "+
					"not list", where, typ)
			}
		}
	}
	seen := map[string]bool{}
	for _, m := range doc.Methods {
		if seen[m.Name] {
			t.Errorf("the document has %s twice", m.Name)
		}
		seen[m.Name] = true
		if m.Summary == "" || m.ParamStructure != "either" || m.Params == nil {
			t.Errorf("%s: summary %q, paramStructure %q, params %v; want a summary, "+
				"either, and an array", m.Name, m.Summary, m.ParamStructure,
				m.Params)
		}
		if m.Result == nil || m.Result.Name == "" {
			t.Errorf("%s: result is %+v, want one with a name", m.Name, m.Result)
		} else {
			schema(m.Name+"'s result", m.Result.Schema)
		}
		names, optional := map[string]bool{}, false
		for _, p := range m.Params {
			if p.Name == "" || names[p.Name] {
				t.Errorf("%s: the name of a parameter is %q, which is empty or is "+
					"there twice", m.Name, p.Name)
			}
			names[p.Name] = true
			if optional && p.Required {
				t.Errorf("%s: the required parameter %s stands behind an optional "+
					"parameter", m.Name, p.Name)
			}
			optional = !p.Required
			schema(m.Name+"'s "+p.Name, p.Schema)
		}
	}
	for _, name := range []string{
		"tls.NewClient", "tls.Handshake", "tls.SetInsecureSkipVerify", "tls.SetCaBundle",
		"tls.PeerCertSubject", "tls.Write", "tls.Read", "tls.Status", "tls.Flush",
		"tls.Shutdown", "tls.Close", "tls.ReadPlain", "tls.WritePlain",
		"tls.NewServerContext", "tls.Accept", "tls.CloseServerContext", "tls.Listen",
		"tls.SetCertificate", "tls.Wait", "tls.Signal", "tls.SetOption", "tls.SetTimeout",
		"tls.Info", "tls.Backend", "tls.Version", "tls.LastError", "tls.Hello",
		"rpc.discover", "$/cancelRequest",
	} {
		if !seen[name] {
			t.Errorf("the document lacks %s", name)
		}
	}
}

// tlsd has each method of the document. The method takes the parameters that the document lists, in
// this order.
func TestDiscoverAgreesWithDispatch(t *testing.T) {
	t.Parallel()
	for _, m := range discovered(t).Methods {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t)
			p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":{"no such parameter":1}}`, m.Name))
			r := p.response()
			if r.Error == nil || r.Error.Code != -32602 {
				t.Fatalf("a call with an unknown parameter returns %v, %v; want "+
					"the error -32602", r.Result, r.Error)
			}
			var names []string
			for _, d := range m.Params {
				if !d.Required {
					d.Name += "?"
				}
				names = append(names, d.Name)
			}
			want := "takes no parameters"
			if len(names) > 0 {
				want = "(" + strings.Join(names, ", ") + ")"
			}
			if !strings.HasSuffix(r.Error.Message, want) {
				t.Errorf("the error is %q, but the document has %s",
					r.Error.Message, want)
			}
		})
	}
}

// tls.Info without a handle returns the library, the trust store, the timeouts and the limits.
func TestInfo(t *testing.T) {
	t.Parallel()
	p := newCaller(t, defaults)
	p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Info"}`)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":{
		"backend":"openssl",
		"libssl":{"path":"/nowhere/libssl.so","version":"crypto/tls stand-in"},
		"trust":{"source":"test","file":"/nowhere/ca.pem","certificates":0},
		"timeouts":{"connect":30000,"handshake":30000,"acceptHandshake":10000,"accept":0,"read":0,"write":30000,"close":1000,"answer":30000,"sessionIdle":0},
		"limits":{"message":24117248,"nesting":64,"buffered":67108864,"blob":16777216,"batch":1024,"handles":65536,"calls":4096,"pending":128}}}`)
}

// proto returns the text of proto.md.
func proto(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../proto.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// table returns the rows of a table of proto.md. The parameter header is the text at the head of
// the table's first column.
func table(t *testing.T, header string) (rows [][]string) {
	t.Helper()
	_, rest, found := strings.Cut(proto(t), "\n| "+header+" |")
	if !found {
		t.Fatalf("proto.md has no table whose first column is headed %s", header)
	}
	for i, line := range strings.Split(rest, "\n") {
		if i < 2 { // the rest of the header, and the dashes
			continue
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		rows = append(rows, cells)
	}
	return rows
}

var quoted = regexp.MustCompile("`([^`]+)`([^`]*)")

// TestProtoListsEveryMethod: proto.md lists each method with its parameters in their order, and no
// other method.
func TestProtoListsEveryMethod(t *testing.T) {
	t.Parallel()
	documented := map[string]string{}
	for _, row := range table(t, "method") {
		var params []string
		for _, m := range quoted.FindAllStringSubmatch(row[1], -1) {
			name := m[1]
			if strings.Contains(m[2], "optional") {
				name += "?"
			}
			params = append(params, name)
		}
		documented[strings.Trim(row[0], "`")] = strings.Join(params, ", ")
		for _, m := range quoted.FindAllStringSubmatch(row[3], -1) {
			if !slices.Contains(kind.All, kind.Kind(m[1])) {
				t.Errorf("%s: %q is no kind of error", row[0], m[1])
			}
		}
	}
	for _, m := range discovered(t).Methods {
		var params []string
		for _, p := range m.Params {
			if !p.Required {
				p.Name += "?"
			}
			params = append(params, p.Name)
		}
		got, there := documented[m.Name]
		if !there {
			t.Errorf("proto.md does not list %s", m.Name)
		} else if want := strings.Join(params, ", "); got != want {
			t.Errorf("%s: proto.md has the parameters (%s), the code has (%s)", m.Name,
				got, want)
		}
		delete(documented, m.Name)
		if !strings.Contains(proto(t), "`"+m.Name+"`**") && m.Name != "rpc.discover" {
			t.Errorf("proto.md does not describe %s", m.Name)
		}
	}
	for name := range documented {
		t.Errorf("proto.md lists %s, which is no method", name)
	}
}

// TestProtoListsEveryKind: proto.md lists each kind of error with its code, and no other kind.
func TestProtoListsEveryKind(t *testing.T) {
	t.Parallel()
	documented := map[kind.Kind][]int{}
	for _, row := range table(t, "kind") {
		k := kind.Kind(strings.Trim(row[0], "`"))
		for _, code := range strings.Fields(row[1]) {
			n, err := strconv.Atoi(code)
			if err != nil {
				t.Errorf("kind %s: a code in proto.md is no number: %v", k, err)
			}
			documented[k] = append(documented[k], n)
		}
	}
	for _, k := range kind.All {
		want := []int{wire.Codes[k]}
		if k == kind.Params {
			want = []int{wire.CodeParse, wire.CodeInvalidRequest,
				wire.CodeMethodNotFound, wire.CodeInvalidParams}
		}
		if !slices.Equal(documented[k], want) {
			t.Errorf("kind %s: proto.md has the codes %v, package wire has %v", k,
				documented[k], want)
		}
		delete(documented, k)
	}
	for k := range documented {
		t.Errorf("proto.md lists %s, which is no kind of error", k)
	}
}

// TestProtoExamples runs the examples of proto.md, the blocks marked jsonrpc, each in a new
// session. The test sends the lines with `-->`, and must get the lines with `<--`. Consecutive
// lines with `<--` may come in any order.
func TestProtoExamples(t *testing.T) {
	t.Parallel()
	blocks := regexp.MustCompile("(?s)```jsonrpc\n(.*?)```").FindAllStringSubmatch(proto(t), -1)
	if len(blocks) < 4 {
		t.Fatalf("proto.md has %d examples, want at least 4", len(blocks))
	}
	for i, b := range blocks {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			p := newCaller(t, defaults, func(e *fakeengine.Engine, _ *rpc.Config) {
				e.System = nil
			})
			text := strings.NewReplacer(
				"$CA", p.ca.File, "$CERT", p.cert.CertFile, "$KEY", p.cert.KeyFile,
				"$ECHO_PORT", strconv.Itoa(p.echo()), "$FREE_PORT",
				strconv.Itoa(testkit.Port(t)),
			).Replace(b[1])
			p.example(strings.Split(strings.TrimSuffix(text, "\n"), "\n"))
			p.silent() // tlsd has answered nothing else
		})
	}
}

// example runs the lines of one example.
func (p *caller) example(lines []string) {
	p.t.Helper()
	var want []string
	flush := func() { // reads the expected answers
		p.t.Helper()
		for len(want) > 0 {
			got := p.answer()
			i := slices.IndexFunc(want, func(line string) bool {
				return matches(line, got)
			})
			if i < 0 {
				p.t.Fatalf("tlsd answers  %s\nproto.md says %s", got, want[0])
			}
			want = slices.Delete(want, i, i+1)
		}
	}
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, "--> "):
			flush()
			p.line(l[4:])
		case strings.HasPrefix(l, "<-- "):
			want = append(want, l[4:])
		default:
			p.t.Fatalf("a line of the example has neither --> nor <--: %q", l)
		}
	}
	flush()
}
