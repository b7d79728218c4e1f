package main

import (
	"bytes"
	"fmt"
	"strings"
)

// The measures of a picture, in pixels, and the pace of its lines, in seconds.
const (
	lineHeight  = 18
	margin      = 16
	width       = 2*margin + columns*8
	linePause   = 0.12
	headingWait = 0.7 // before a line that begins with ==
	commandWait = 0.8 // after the command
)

const style = `
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
text { white-space: pre; fill: #1f2328; animation: appear 1ms both }
.paper { fill: #f6f8fa; stroke: #d0d7de }
.command, .heading { font-weight: 600 }
.command { fill: #0969da }
.error { fill: #cf222e }
@keyframes appear { from { opacity: 0 } to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { text { animation: none } }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.paper { fill: #0d1117; stroke: #30363d }
.command { fill: #58a6ff }
.error { fill: #ff7b72 }
}
`

// picture draws a recording as SVG.
func picture(r recording, lines []string) []byte {
	var b bytes.Buffer
	lines = append([]string{"$ " + r.command}, lines...)
	height := 2*margin + len(lines)*lineHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" `+
		`width="%d" height="%d" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", escape(r.title), style)
	fmt.Fprintf(&b, `<rect class="paper" x=".5" y=".5" width="%d" height="%d" rx="6"/>`+"\n",
		width-1, height-1)
	at := 0.0
	for i, line := range lines {
		class := classOf(i, line)
		if class == "heading" {
			at += headingWait
		}
		if line != "" {
			fmt.Fprintf(&b, `<text%s x="%d" y="%d" style="animation-delay:%.2fs">%s</text>`+"\n",
				attribute(class), margin, margin+13+i*lineHeight, at, escape(line))
		}
		at += linePause
		if i == 0 {
			at += commandWait
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// classOf returns the CSS class of line i; "" for plain output.
func classOf(i int, line string) string {
	switch {
	case i == 0:
		return "command"
	case strings.HasPrefix(line, "=="):
		return "heading"
	case strings.Contains(line, "lost: "):
		return "error"
	}
	return ""
}

func attribute(class string) string {
	if class == "" {
		return ""
	}
	return fmt.Sprintf(` class="%s"`, class)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
