package logs

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
)

// toJournal reports whether w leads to systemd's journal (systemd.exec(5), JOURNAL_STREAM).
func toJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat := info.Sys().(*syscall.Stat_t)
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// NewText returns a handler that writes lines of text to w: to systemd's journal without the time, which
// that keeps itself, and with the level of each as it wants it.
func NewText(w io.Writer, level slog.Leveler) slog.Handler {
	if toJournal(w) {
		return slog.NewTextHandler(journal{w}, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime})
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}

// withoutTime leaves out what the journal keeps, and shows, of every line.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// A journal tells systemd's the level of each line (sd-daemon(3)), so that `journalctl -p warning`
// finds what somebody should read. It is as safe for concurrent use as what it writes to.
type journal struct{ w io.Writer }

// Write takes a whole line, which begins with its level.
func (j journal) Write(line []byte) (int, error) {
	priority := "<6>"
	for prefix, p := range map[string]string{"level=ERROR": "<3>", "level=WARN": "<4>", "level=DEBUG": "<7>"} {
		if bytes.HasPrefix(line, []byte(prefix)) {
			priority = p
		}
	}
	if _, err := j.w.Write(append([]byte(priority), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
