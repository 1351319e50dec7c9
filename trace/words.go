package trace

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// noticeQueued is what the log says when a delivery status notification about a message is made.
const noticeQueued = "DSN queued"

// words says what happened. What the log says of little else than a message's way is told as it
// stands there.
func words(e *Event) string {
	f := e.Fields
	switch {
	case e.What == "accepted":
		return fmt.Sprintf("%s: %s, from %s to %s, %s bytes%s", f["how"], taken(f), f["from"], f["to"], f["size"], with(", Message-ID ", f["message_id"]))
	case strings.HasPrefix(e.What, "refused") && f["from"] != "":
		return fmt.Sprintf("%s: %s, from %s%s: %s%s", e.What, taken(f), f["from"], with(" to ", f["to"]), f["reply"], because(f))
	case e.What == "delivered":
		return "delivered to " + attempt(f)
	case e.What == "deferred":
		return fmt.Sprintf("put off until %s: %s", f["next"], attempt(f))
	case e.What == "failed":
		return "given up: " + attempt(f)
	case e.What == noticeQueued:
		return fmt.Sprintf("a notice (%s) about %s goes to %s", f["action"], f["about"], f["to"])
	}
	text, between := e.What, ": "
	for _, key := range slices.Sorted(maps.Keys(f)) {
		text += between + key + " " + f[key]
		between = ", "
	}
	return text
}

// taken says who brought a message.
func taken(f map[string]string) string {
	who := "brought by " + f["client"]
	if f["user"] != "" {
		who += " as " + f["user"]
	}
	return who
}

// attempt says where a message went for a recipient, and what was said there.
func attempt(f map[string]string) string {
	text := f["to"] + with(" for ", f["alias"]) + with(", at ", f["host"]) + with(" over ", f["tls"])
	return text + with(", attempt ", f["attempts"]) + with(": ", f["reply"]) + because(f)
}

func because(f map[string]string) string {
	if f["cause"] == "" {
		return ""
	}
	return " (" + f["cause"] + ")"
}

// with is text behind lead, if there is any.
func with(lead, text string) string {
	if text == "" {
		return ""
	}
	return lead + text
}
