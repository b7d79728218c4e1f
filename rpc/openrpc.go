package rpc

// schema is a JSON Schema.
type schema map[string]any

// Results of methods.
var (
	sHandle = schema{"title": "handle", "type": "integer", "minimum": 1, "maximum": 2147483647}
	sZero   = schema{"title": "zero", "const": 0}
	sReady  = schema{"title": "handle or 0", "type": "integer",
		"minimum": 0, "maximum": 2147483647}
	sCount  = schema{"title": "count", "type": "integer", "minimum": 0, "maximum": 16777216}
	sString = schema{"title": "text", "type": "string"}
	sBlob   = schema{"title": "blob", "type": "string", "contentEncoding": "base64"}
	sObject = schema{"title": "object", "type": "object"}
	sNull   = schema{"title": "nothing", "type": "null"}
)

// discover is rpc.discover: the OpenRPC document (spec.open-rpc.org, 1.3) of all methods.
var discover = method{
	name: "rpc.discover", doc: "This document.",
	result: sObject,
}

func openRPC(version string) any {
	type content struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		Required    bool   `json:"required,omitempty"`
		Schema      schema `json:"schema"`
	}
	type methodDoc struct {
		Name           string    `json:"name"`
		Summary        string    `json:"summary"`
		ParamStructure string    `json:"paramStructure"`
		Params         []content `json:"params"`
		Result         content   `json:"result"`
	}
	var list []methodDoc
	add := func(m *method) {
		d := methodDoc{
			Name:           m.name,
			Summary:        m.doc,
			ParamStructure: "either",
			Params:         []content{},
			Result:         content{Name: m.result["title"].(string), Schema: m.result},
		}
		for _, p := range m.params {
			d.Params = append(d.Params, content{Name: p.name, Description: p.doc,
				Required: !p.optional, Schema: p.schema()})
		}
		list = append(list, d)
	}
	for i := range table {
		add(&table[i])
	}
	add(&discover)
	return map[string]any{
		"openrpc": "1.3.2",
		"info": map[string]any{"title": "tlsd", "version": version,
			"description": "TLS connections in a process of their own; see proto.md."},
		"methods": list,
	}
}

func (p param) schema() schema {
	switch p.typ {
	case integer:
		return schema{"type": "integer", "minimum": p.min, "maximum": p.max}
	case str:
		return schema{"type": "string", "minLength": p.min}
	case blob:
		return schema{"type": "string", "contentEncoding": "base64"}
	case texts:
		return schema{"type": "array", "items": schema{"type": "string"}}
	default:
		return schema{"type": []string{"string", "integer", "null"}}
	}
}
