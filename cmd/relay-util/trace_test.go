package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/queue"
	"relayd/trace"
)

const aLog = `time=2026-06-01T12:00:00Z level=INFO msg=accepted id=AAAAAAAA client=192.0.2.7 from=<me@example.org> to=<you@gmail.com> size=48 message_id="" copies=1 how=queued
time=2026-06-01T12:00:01Z level=INFO msg=deferred id=AAAAAAAA to=<you@gmail.com> host=mx.google.com reply="421 4.7.28 slow` + "\\x1b[31m" + ` down" attempts=1 next=2026-06-01T12:05:00Z
time=2026-06-01T12:00:02Z level=INFO msg=refused id=CCCCCCCC client=192.0.2.7 from=<x@else.example> reply="550 5.1.1 No"
`

// TestTrace tells of a message from the log and the queue.
func TestTrace(t *testing.T) {
	s := newSite(t)
	s.write("log", aLog)
	log := " --log " + filepath.Join(s.dir, "log")
	s.envelopes = twoMessages(time.Now())
	for about, want := range map[string][]string{
		"AAAAAAAA":      {"queued: brought by 192.0.2.7", "put off until", "waits for <you@gmail.com> after 2 attempts, next in"},
		"YOU@gmail.com": {"queued: brought by 192.0.2.7", "put off until", "waits for <you@gmail.com> after 2 attempts, next in"},
		"a@x.example":   {"received from <>, 48 bytes", "is held for <a@x.example>", "is held for", "is held for", "is held for"},
		"CCCCCCCC":      {"refused: brought by 192.0.2.7, from <x@else.example>: 550 5.1.1 No"},
	} {
		out, _ := s.run(0, "trace "+about+log)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if !slices.EqualFunc(lines, want, func(line, w string) bool { return strings.Contains(line, w) }) {
			t.Errorf("%s:\n%s", about, out)
		}
		if strings.Contains(out, "\x1b") {
			t.Error("the terminal is told what to do")
		}
	}
	if out, _ := s.run(1, "trace EEEEEEEE"+log); out != "nothing is known of EEEEEEEE\n" {
		t.Errorf("%q", out)
	}
	if out, _ := s.run(1, "trace EEEEEEEE --json"+log); out != "[]\n" {
		t.Errorf("%q", out)
	}
	out, _ := s.run(0, "trace AAAAAAAA --json"+log)
	var events []trace.Event
	if err := json.Unmarshal([]byte(out), &events); err != nil || len(events) != 3 || events[0].What != "accepted" || events[0].Fields["how"] != "queued" {
		t.Errorf("%v in %s", err, out)
	}
	for _, wrong := range []string{"trace", "trace x", "trace AAAAAAAA BBBBBBBB", "trace AAAAAAAA --since yesterday"} {
		s.run(2, wrong)
	}
}

// TestTraceOfWhatTheLogHasForgotten: the queue knows what went before the log begins, and no more is
// told of it than that.
func TestTraceOfWhatTheLogHasForgotten(t *testing.T) {
	s := newSite(t)
	now := time.Now().Truncate(time.Second)
	s.envelopes = twoMessages(now)
	s.envelopes[0].Received = now.Add(-2*time.Hour + 700*time.Millisecond) // and tried within that second
	s.envelopes[0].Recipients[0].History = []queue.Run{
		{First: now.Add(-2 * time.Hour), Last: now.Add(-90 * time.Minute), Count: 3, Reply: "451 early"},
		{First: now.Add(-time.Hour), Last: now.Add(-time.Hour), Count: 1, Host: "mx.google.com", Reply: "421 late"},
	}
	s.write("log", "time="+now.Add(-time.Hour).Add(300*time.Millisecond).UTC().Format(time.RFC3339Nano)+" level=INFO msg=deferred id=AAAAAAAA to=<you@gmail.com> reply=\"421 late\"\n")
	out, _ := s.run(0, "trace AAAAAAAA --log "+filepath.Join(s.dir, "log"))
	told := 0
	for _, want := range []string{"received from <me@example.org>", "tried for <you@gmail.com>, at no server: 451 early (3 times until", "put off until", "421 late", "waits for"} {
		if strings.Count(out, want) != 1 {
			t.Errorf("%q is not told once in\n%s", want, out)
		}
		if at := strings.Index(out, want); at < told {
			t.Errorf("%q is told too early in\n%s", want, out)
		} else {
			told = at
		}
	}
}

// TestTraceFromTheJournal has a journalctl that writes what it is asked for, and one that fails.
func TestTraceFromTheJournal(t *testing.T) {
	s := newSite(t)
	bin := filepath.Join(s.dir, "bin")
	t.Setenv("PATH", bin)
	if _, err := s.run(1, "trace CCCCCCCC"); !strings.Contains(err, "--log FILE") {
		t.Errorf("without a journal: %q", err)
	}
	s.write("bin/journalctl", "#!/bin/sh\necho \"$@\" >"+s.dir+"/asked\nwhile read -r line; do echo \"$line\"; done <"+s.dir+"/log\n")
	s.write("log", aLog)
	if err := os.Chmod(filepath.Join(bin, "journalctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, _ := s.run(0, "trace CCCCCCCC --since 2d"); !strings.Contains(out, "550 5.1.1 No") {
		t.Errorf("from the journal: %q", out)
	}
	asked, _ := os.ReadFile(filepath.Join(s.dir, "asked"))
	if !strings.HasPrefix(string(asked), "--unit=relayd --output=short-unix --no-pager --quiet --since="+time.Now().Add(-48*time.Hour).Format("2006-01-02 ")) {
		t.Errorf("journalctl is asked %q", asked)
	}
	s.write("bin/journalctl", "#!/bin/sh\necho no such file >&2\nexit 1\n")
	if _, err := s.run(1, "trace CCCCCCCC"); !strings.Contains(err, "journalctl: exit status 1: no such file") {
		t.Errorf("a journal that cannot be read: %q", err)
	}
	s.envelopes = twoMessages(time.Now())
	if out, err := s.run(0, "trace AAAAAAAA"); !strings.Contains(out, "waits for") || !strings.Contains(err, "no such file") {
		t.Errorf("from the queue alone: %q, %q", out, err)
	}
}

// TestTraceWithoutADaemon reads standard input.
func TestTraceWithoutADaemon(t *testing.T) {
	dir := t.TempDir()
	var out, said strings.Builder
	code := run(t.Context(), []string{"trace", "CCCCCCCC", "--log", "-", "-c", filepath.Join(dir, "relayd.toml")}, streams{strings.NewReader(aLog), &out, &said})
	if code != 0 || !strings.Contains(out.String(), "550 5.1.1 No") || !strings.Contains(said.String(), "warning") {
		t.Errorf("%d, %q, %q", code, &out, &said)
	}
}
