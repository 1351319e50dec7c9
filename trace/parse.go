package trace

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Parse reads one line of relayd's log in either of its formats, or as journalctl shows it with
// --output=short-unix. It returns false for any other line.
func Parse(line string) (Event, bool) {
	fields := parseJSON(line)
	if fields == nil {
		fields = parseJournal(line)
	}
	if fields == nil {
		fields = parseText(line)
	}
	at, err := time.Parse(time.RFC3339Nano, fields["time"])
	e := Event{At: at, ID: fields["id"], What: fields["msg"], Fields: fields}
	for _, key := range []string{"time", "level", "msg", "id"} {
		delete(fields, key)
	}
	return e, err == nil && e.What != ""
}

// parseJSON returns nil for what is not written by slog.JSONHandler.
func parseJSON(line string) map[string]string {
	start := strings.Index(line, `{"time":`)
	if start < 0 {
		return nil
	}
	var values map[string]any
	d := json.NewDecoder(strings.NewReader(line[start:]))
	d.UseNumber()
	if d.Decode(&values) != nil {
		return nil
	}
	fields := map[string]string{}
	for key, v := range values {
		fields[key] = fmt.Sprint(v)
	}
	return fields
}

// parseJournal reads "SECONDS.MICROSECONDS HOST relayd[PID]: level=…", in which the time is the
// journal's. It returns nil for other lines.
func parseJournal(line string) map[string]string {
	head, text, ok := strings.Cut(line, "]: ") // the first: what follows may be anybody's text
	if !ok || !strings.HasPrefix(text, "level=") {
		return nil
	}
	head, _, _ = strings.Cut(head, " ")
	whole, fraction, _ := strings.Cut(head, ".")
	seconds, err := strconv.ParseUint(whole, 10, 40)
	micros, err2 := strconv.ParseUint(fraction, 10, 20)
	if err != nil || err2 != nil {
		return nil
	}
	fields := parsePairs(text)
	fields["time"] = time.Unix(int64(seconds), int64(micros)*1000).UTC().Format(time.RFC3339Nano)
	return fields
}

func parseText(line string) map[string]string {
	start := strings.Index(line, "time=")
	if start < 0 {
		return nil
	}
	return parsePairs(line[start:])
}

// parsePairs reads what slog.TextHandler writes: pairs of which either side is quoted as Go does
// where it would not be clear otherwise. It returns what stands before the first mistake.
func parsePairs(text string) map[string]string {
	fields := map[string]string{}
	for rest := text; rest != ""; rest = strings.TrimPrefix(rest, " ") {
		var key, value string
		var ok bool
		if key, rest, ok = word(rest, "="); !ok || !strings.HasPrefix(rest, "=") {
			break
		}
		if value, rest, ok = word(rest[1:], " "); !ok || rest != "" && rest[0] != ' ' {
			break
		}
		fields[key] = value
	}
	return fields
}

// word takes one side of a pair off text: a quoted one, or all before end.
func word(text, end string) (w, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		n := strings.Index(text, end)
		if n < 0 {
			n = len(text)
		}
		return text[:n], text[n:], true
	}
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", text, false
	}
	w, err = strconv.Unquote(quoted)
	return w, text[len(quoted):], err == nil
}
