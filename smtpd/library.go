package smtpd

import (
	"fmt"
	"log/slog"
	"strings"
)

// libraryPanic begins what go-smtp answers when it recovers from a panic, its own or one of ours in what
// it calls outside of a session's contain.
const libraryPanic = "421 4.0.0 Internal server error"

// A libraryLog takes what go-smtp logs and gives it the level that it has for the admin. The library
// knows none; most of what it says is about clients that are gone.
type libraryLog struct{ *slog.Logger }

// Printf makes libraryLog a smtp.Logger.
func (l libraryLog) Printf(format string, v ...any) {
	switch {
	case strings.HasPrefix(format, "panic") && len(v) == 3:
		l.Error("panic while talking to a client", "client", fmt.Sprint(v[0]), "panic", v[1], "stack", fmt.Sprintf("%s", v[2]))
	case strings.HasPrefix(format, "panic"), strings.HasPrefix(format, "accept"):
		l.Error("from the SMTP library", "error", fmt.Sprintf(format, v...))
	default:
		l.Debug("from the SMTP library", "error", fmt.Sprintf(format, v...))
	}
}

// Println makes libraryLog a smtp.Logger.
func (l libraryLog) Println(v ...any) { l.Debug("from the SMTP library", "error", fmt.Sprint(v...)) }
