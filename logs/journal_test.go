package logs

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestTheJournalKeepsTheTime: what goes to systemd's journal has the level for it and no time; all
// else has a time of its own.
func TestTheJournalKeepsTheTime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	for _, stream := range []string{fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1), ""} {
		t.Setenv("JOURNAL_STREAM", stream)
		log := slog.New(New(NewText(f, slog.LevelDebug), NoIP))
		log.Debug("one", "client", "192.0.2.1")
		log.Info("two")
		log.Warn("three")
		log.Error("four")
		log.Info("five", slog.Group("a", slog.String("time", "b")))
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	want := "<7>level=DEBUG msg=one client=…\n<6>level=INFO msg=two\n<4>level=WARN msg=three\n<3>level=ERROR msg=four\n<6>level=INFO msg=five a.time=b"
	if got := strings.Join(lines[:5], "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, line := range lines[5:15] {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("%s", line)
		}
	}
}
