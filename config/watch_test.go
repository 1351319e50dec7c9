package config

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnEditOfTheSettingsIsToldOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relayd.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := "hostname = \"mx.example.org\"\n"
	write(good)
	conf, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	w := NewWatcher(conf, slog.New(slog.NewTextHandler(&log, nil)))
	for _, tt := range []struct {
		name, text, problem, warning string
		lines                        int // of the log
	}{
		{"as at the start", good, "", "", 0},
		{"a mistake", good + "hostnam = 1\n", "hostnam", "", 1},
		{"the same mistake elsewhere", good + "hostnam = 1\n\n", "hostnam", "", 0},
		{"another value", good + "postmaster = \"me@gmail.example\"\n", "", "restart it", 1},
		{"a comment alone", good + "# here\n", "", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log.Reset()
			write(tt.text)
			for range 2 { // the second look finds nothing new
				problems := w.Look()
				again, warnings := w.State()
				if problems.Error() != again.Error() || (tt.problem == "") != (problems == nil) || !strings.Contains(problems.Error(), tt.problem) {
					t.Errorf("problems: %v, %v", problems, again)
				}
				if (tt.warning == "") != (warnings == nil) || !strings.Contains(warnings.Error(), tt.warning) {
					t.Errorf("warnings: %v", warnings)
				}
			}
			if got := strings.Count(log.String(), "\n"); got != tt.lines {
				t.Errorf("%d lines: %s", got, &log)
			}
		})
	}
}
