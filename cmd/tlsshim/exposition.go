package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tlsd/internal/admin"
)

// exposition gives metrics in Prometheus' text format, version 0.0.4. The format has only three
// kinds of lines, so there is no need for a library.
func exposition(families []admin.Family) []byte {
	var b bytes.Buffer
	for _, f := range families {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.Name,
			strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(f.Help), f.Name, f.Type)
		for _, s := range f.Samples {
			if f.Type != "histogram" {
				sample(&b, f.Name, s.Labels, s.Value)
				continue
			}
			for i, bound := range s.Bounds {
				if i < len(s.Counts) {
					sample(&b, f.Name+"_bucket",
						with(s.Labels, "le", decimal(bound)),
						float64(s.Counts[i]))
				}
			}
			sample(&b, f.Name+"_bucket", with(s.Labels, "le", "+Inf"), float64(s.Count))
			sample(&b, f.Name+"_sum", s.Labels, s.Value)
			sample(&b, f.Name+"_count", s.Labels, float64(s.Count))
		}
	}
	return b.Bytes()
}

func sample(b *bytes.Buffer, name string, labels map[string]string, value float64) {
	b.WriteString(name)
	separator := "{"
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(b, `%s%s="%s"`, separator, key,
			strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(labels[key]))
		separator = ","
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
	fmt.Fprintf(b, " %s\n", decimal(value))
}

// with() adds a label to a copy of labels.
func with(labels map[string]string, key, value string) map[string]string {
	all := map[string]string{key: value}
	maps.Copy(all, labels)
	return all
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
