// Package journal sends the log to systemd's journal, by its native protocol. An entry has a
// priority, a message, and fields by which journalctl(1) can select entries.
//
// The rules:
//
//   - A [Writer] takes lines of JSON, as the log has them. Each line becomes one entry.
//   - The message is for people. It has the line's text, and then the line's other keys and values.
//     It has no newline.
//   - Each of these keys also becomes a field, unless the key is longer than longestKey or has
//     characters besides a-z, 0-9 and -. The field's name is TLSD_ and the key in capitals (with _
//     for -). So no key can set a field that the journal itself uses, such as MESSAGE. Only the key
//     session has no prefix: it becomes SESSION.
//   - Each value is sent with its length, so no value can begin another field.
//
// While the journal takes no entries, a Write waits. Close ends this wait.
package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"tlsd/internal/plain"
)

// Socket is where the journal takes entries.
const Socket = "/run/systemd/journal/socket"

// longestMessage limits a message, in bytes. A longer message is cut. The other fields are not cut.
const longestMessage = 32 << 10

// Priorities of syslog(3).
const (
	priorityError   = "3"
	priorityWarning = "4"
	priorityNotice  = "5"
	priorityInfo    = "6"
	priorityDebug   = "7"
)

// auditLogger is the name of the audit log. Its lines of level info get a higher priority.
const auditLogger = "audit"

// A member is a member of the JSON object of a line.
type member struct {
	key   string
	value string // a string is decoded; any other value is JSON
	text  bool   // value is a string
}

// native makes an entry of a line. A line that is no JSON object becomes the message.
func native(line []byte) []byte {
	line = bytes.TrimRight(line, "\n")
	var text, level, logger string
	var rest []member
	members, err := membersOf(line)
	if err != nil {
		text = string(line)
	}
	for _, m := range members {
		switch m.key {
		case "msg":
			text = m.value
		case "level":
			level = m.value
		case "logger":
			logger = m.value
		case "ts": // the journal has a time of its own
		default:
			rest = append(rest, m)
		}
	}
	var b bytes.Buffer
	field(&b, "MESSAGE", message(logger, text, rest))
	field(&b, "PRIORITY", priority(level, logger))
	field(&b, "SYSLOG_IDENTIFIER", "tlsd")
	if logger != "" {
		field(&b, "TLSD_LOGGER", logger)
	}
	for _, m := range rest {
		if name := fieldName(m.key); name != "" {
			field(&b, name, m.value)
		}
	}
	return b.Bytes()
}

// field adds a field: the name, the length and the value.
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	b.WriteByte('\n')
	_ = binary.Write(b, binary.LittleEndian, uint64(len(value))) // a Buffer never fails
	b.WriteString(value)
	b.WriteByte('\n')
}

// longestKey limits a key that becomes a field, in bytes. The journal accepts names of fields up to
// 64 bytes.
const longestKey = 50

// fieldName is the name of the field for a key, or "" if the key gets no field.
func fieldName(key string) string {
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	switch {
	case key == "session":
		return "SESSION"
	case key == "" || len(key) > longestKey || strings.ContainsFunc(key, odd):
		return ""
	}
	return "TLSD_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

func priority(level, logger string) string {
	switch level {
	case "debug":
		return priorityDebug
	case "info", "":
		if logger == auditLogger {
			return priorityNotice
		}
		return priorityInfo
	case "warn":
		return priorityWarning
	}
	return priorityError
}

// message makes the message of an entry, which is for people.
func message(logger, text string, rest []member) string {
	var b strings.Builder
	if logger != "" {
		b.WriteString(logger + ": ")
	}
	b.WriteString(text)
	for _, m := range rest {
		fmt.Fprintf(&b, " %s=%s", m.key, m.shown())
	}
	return plain.Text(b.String(), longestMessage)
}

// shown is the value as the message shows it. A string is quoted if it is empty, or has a space, a
// quotation mark or an equals sign.
func (m member) shown() string {
	odd := func(r rune) bool { return unicode.IsSpace(r) || r == '"' || r == '=' }
	if m.text && (m.value == "" || strings.ContainsFunc(m.value, odd)) {
		return strconv.Quote(m.value)
	}
	return m.value
}

// membersOf gives the members of an object in their order.
func membersOf(line []byte) ([]member, error) {
	in := json.NewDecoder(bytes.NewReader(line))
	begin, err := in.Token()
	if err != nil {
		return nil, err
	}
	if begin != json.Delim('{') {
		return nil, fmt.Errorf("not an object, but beginning with %v", begin)
	}
	var list []member
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return nil, err
		}
		m := member{key: key.(string), value: string(raw)}
		if raw[0] == '"' {
			m.text = true
			if err := json.Unmarshal(raw, &m.value); err != nil {
				return nil, err
			}
		}
		list = append(list, m)
	}
	return list, nil
}
