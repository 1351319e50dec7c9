package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/control"
	"relayd/queue"
)

func TestQueueList(t *testing.T) {
	s := newSite(t)
	if out, _ := s.run(0, "queue-list"); out != "the queue is empty\n" {
		t.Errorf("an empty queue is %q", out)
	}
	if out, _ := s.run(0, "queue-list --json"); out != "[]\n" {
		t.Errorf("an empty queue is %q", out)
	}
	s.envelopes = twoMessages(time.Now())
	out, _ := s.run(0, "queue-list")
	var words [][]string
	for line := range strings.Lines(out) {
		words = append(words, strings.Fields(line))
	}
	want := [][]string{
		strings.Fields("ID SIZE RECEIVED STATE NEXT SENDER RECIPIENTS"),
		strings.Fields("AAAAAAAA 48B 2h ago waiting in 4m me@example.org you@gmail.com"),
		strings.Fields("BBBBBBBB 48B 30s ago held (by you) - <> a@x.example, c@x.example, d@x.example, and 1 more"),
	}
	if !reflect.DeepEqual(words[:2], want[:2]) || !slices.Equal(words[2][4:], want[2][4:]) {
		t.Errorf("the table is\n%s", out)
	}
	out, _ = s.run(0, "queue-list --domain GMAIL.com. --json")
	var list []map[string]any
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v in %s", err, out)
	}
	for _, key := range []string{"id", "sender", "size", "received", "state", "next", "recipients"} {
		if list[0][key] == nil {
			t.Errorf("no %s in %s", key, out)
		}
	}
	if _, err := time.Parse(time.RFC3339, fmt.Sprint(list[0]["next"])); err != nil {
		t.Error(err)
	}
	r := list[0]["recipients"].([]any)[0].(map[string]any)
	if r["address"] != "you@gmail.com" || r["state"] != "waiting" || r["attempts"] != 2.0 || !strings.HasPrefix(r["last_reply"].(string), "421") {
		t.Errorf("the recipient is %v", r)
	}
	if out, _ = s.run(0, "queue-list --json"); json.Unmarshal([]byte(out), &list) != nil || len(list) != 2 {
		t.Errorf("the list is %s", out)
	}
}

func TestLongQueueIsTabulatedInPages(t *testing.T) {
	s := newSite(t)
	for range 2*pageRows + 1 {
		s.envelopes = append(s.envelopes, twoMessages(time.Now())[0])
	}
	out, _ := s.run(0, "queue-list")
	if lines, heads := strings.Count(out, "\n"), strings.Count(out, "ID "); lines != 2*pageRows+1+3 || heads != 3 {
		t.Errorf("%d lines with %d heads", lines, heads)
	}
}

func TestQueueShow(t *testing.T) {
	s := newSite(t)
	s.envelopes = twoMessages(time.Now())
	out, _ := s.run(0, "queue-show AAAAAAAA")
	for _, want := range []string{
		"id:        AAAAAAAA\n", "sender:    me@example.org\n", "user:      me@example.org\n", "received:  2h ago\n", "state:     waiting\n",
		"\nyou@gmail.com\n  for shop@example.org\n  waiting after 2 attempts, next in 4m\n  last reply of mx.google.com, 1h ago: 421 4.7.28 slow\ufffd[31m down\n",
		"\nSubject: \ufffd[31mred\nFrom: a@example.org\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "body") {
		t.Errorf("more than the header in\n%s", out)
	}
	out, _ = s.run(0, "--json queue-show AAAAAAAA")
	var d control.Detail
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.ID != "AAAAAAAA" || !strings.Contains(d.Header, "\x1b[31mred\r\n") {
		t.Errorf("%v in %s", err, out)
	}
	if out, errs := s.run(1, "queue-show CCCCCCCC"); out != "" || errs != "relay-util: no such message in the queue\n" {
		t.Errorf("an unknown ID: %q, %q", out, errs)
	}
}

func TestQueueChanges(t *testing.T) {
	tests := []struct {
		line, out string
		code      int
		done      string
	}{
		{"queue-retry AAAAAAAA", "AAAAAAAA will be tried now\n", 0, "retry AAAAAAAA"},
		{"queue-hold BBBBBBBB AAAAAAAA", "BBBBBBBB held\nAAAAAAAA held\n", 0, "hold BBBBBBBB,hold AAAAAAAA"},
		{"queue-release --domain x.example", "BBBBBBBB released\n", 0, "release BBBBBBBB"},
		{"queue-retry --domain Example.ORG", "AAAAAAAA will be tried now\n", 0, "retry AAAAAAAA"},
		{"queue-hold --all", "AAAAAAAA held\nBBBBBBBB held\n", 0, "hold AAAAAAAA,hold BBBBBBBB"},
		{"queue-remove BBBBBBBB", "BBBBBBBB removed\n", 0, "remove BBBBBBBB"},
		{"queue-remove --all --yes", "AAAAAAAA removed\nBBBBBBBB removed\n", 0, "remove AAAAAAAA,remove BBBBBBBB"},
		{"queue-remove --domain gmail.com --yes", "AAAAAAAA removed\n", 0, "remove AAAAAAAA"},
		{"queue-remove --all", "", 2, ""},
		{"queue-remove --domain gmail.com", "", 2, ""},
		{"queue-retry", "", 2, ""},
		{"queue-remove --yes", "", 2, ""},
		{"queue-retry --domain nowhere.example", "no message is so\n", 0, ""},
		{"queue-retry --domain a..b", "", 2, ""},
		{"queue-retry CCCCCCCC", "", 1, ""},
		{"queue-hold AAAAAAAA --json", "{\"ids\": [\n\"AAAAAAAA\"\n]}\n", 0, "hold AAAAAAAA"},
		{"queue-hold --domain nowhere.example --json", "{\"ids\": []}\n", 0, ""},
	}
	s := newSite(t)
	s.envelopes = twoMessages(time.Now())
	for _, tt := range tests {
		s.done = nil
		out, _ := s.run(tt.code, tt.line)
		if done := strings.Join(s.done, ","); out != tt.out || done != tt.done {
			t.Errorf("%s: %q, did %s", tt.line, out, done)
		}
	}
}

func TestAges(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "3d": 72 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "0d1s": time.Second,
	} {
		if got, err := parseAge(text); got != want || err != nil {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "3", "-1h", "0s", "0d", "-3d", "3d-1h", "1.5d", "3 days", "99999999d", "1h3d"} {
		if got, err := parseAge(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestQuestionSaysWhichMessages(t *testing.T) {
	f := &filter{Filter: control.Filter{Domain: "x.example", Sender: "<>", State: queue.Held}, older: "3d"}
	if got, want := f.String(), "to x.example, from <>, older than 3d, that are held"; got != want {
		t.Errorf("%q", got)
	}
}

func TestHistoryIsShown(t *testing.T) {
	s := newSite(t)
	s.envelopes = twoMessages(time.Now())
	r := &s.envelopes[0].Recipients[0]
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.Local)
	r.Attempts, r.Trying = 7, true
	r.History = []queue.Run{
		{First: at, Last: at, Count: 1, Reply: "451 4.4.1 mx.google.com cannot be reached"},
		{First: at.Add(time.Hour), Last: at.Add(2 * time.Hour), Count: 4, Host: "mx.google.com", Reply: r.LastReply},
	}
	want := "\n  waiting after 7 attempts, the last of them is under way\n" +
		"  Nov  2 09:00:00                              -              451 4.4.1 mx.google.com cannot be reached\n" +
		"  and 1 attempt of which nothing is kept                      \n" +
		"  Nov  2 10:00:00 to Nov  2 11:00:00, 4 times  mx.google.com  421 4.7.28 slow\ufffd[31m down\n\nSubject"
	if out, _ := s.run(0, "queue-show AAAAAAAA"); !strings.Contains(out, want) {
		t.Errorf("no\n%s\nin\n%s", want, out)
	}
	s.damaged = "AAAAAAAA"
	if out, _ := s.run(0, "queue-show AAAAAAAA"); !strings.HasSuffix(out, "\nits header cannot be read: its sum is wrong\n") {
		t.Errorf("when it is damaged:\n%s", out)
	}
}

func TestReportOfACheckSaysWhatToDo(t *testing.T) {
	s := newSite(t)
	s.report = queue.Report{
		Segments: 3, Messages: 5, Large: 1, Bytes: 3 << 20,
		Damage: []queue.Damage{
			{File: "/q/log/1.log", What: "2 places in it are damaged"},
			{File: "/q/large/AAAAAAAA", ID: "AAAAAAAA", What: "/q/large/AAAAAAAA: bad sum"},
			{File: "/q/log/3.log", What: "1 places in it are damaged"},
		},
		Aside: []string{"/q/damaged/0.log.checked", "/q/damaged/1.log.checked"},
	}
	out, _ := s.run(1, "queue-check")
	for _, want := range []string{
		"read 3.0MB: 5 messages, 1 of them in files of their own, and 3 segments of the log\n",
		"\n/q/log/1.log: 2 places in it are damaged\n  was set aside as /q/damaged/1.log.checked ",
		"\n/q/large/AAAAAAAA: bad sum\n  hits the message AAAAAAAA: see `relay-util queue-show AAAAAAAA`",
		"\n/q/log/3.log: 1 places in it are damaged\n  is being written to: restart relayd",
		"set aside earlier because of damage, all that is whole in it is served; it can be deleted:\n  /q/damaged/0.log.checked\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _ = s.run(1, "queue-check --json")
	var report queue.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || !reflect.DeepEqual(report, s.report) {
		t.Errorf("%v in %s", err, out)
	}
	s.report.Damage = []queue.Damage{}
	if out, _ := s.run(0, "queue-check"); !strings.Contains(out, "all is as it was written\n") {
		t.Errorf("without damage:\n%s", out)
	}
}

func TestDestinations(t *testing.T) {
	s := newSite(t)
	if out, _ := s.run(0, "destinations"); out != "nothing was sent of late, and nothing waits\n" {
		t.Errorf("%s", out)
	}
	s.destinations = []control.Destination{
		{
			Name: "google.com", Waiting: 12, Used: 1, Window: 4, Paused: time.Now().Add(9*time.Minute + 30*time.Second), Note: "no IPv6 until tomorrow",
			LastReply: "421 4.7.28 too \x1b[31mfast", LastAt: time.Now().Add(-30 * time.Second),
		},
		{Name: "slow.example", Waiting: 1},
	}
	out, _ := s.run(0, "destinations")
	for _, want := range []string{
		"DESTINATION   WAITING  ATTEMPTS  PAUSED ", "google.com    12       1 of 4    ends in 9m  no IPv6 until tomorrow  ", "s ago: 421 4.7.28 too \uFFFD[31mfast\n",
		"slow.example  1        -         -           -                       -\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var list []control.Destination
	if out, _ := s.run(0, "destinations --json"); json.Unmarshal([]byte(out), &list) != nil || len(list) != 2 || list[0].Waiting != 12 {
		t.Errorf("%s", out)
	}
}

func TestPictureOfTheQueue(t *testing.T) {
	s := newSite(t)
	now := time.Now()
	s.envelopes = twoMessages(now)
	s.groups = []queue.GroupStatus{{Name: "google.com", Used: 4, Window: 9}, {Name: "slow.example", Used: 2, Window: 2, WaitingSince: now.Add(-150 * time.Second)}}
	tool := &tool{now: func() time.Time { return now }, stdout: io.Discard}
	client := control.NewClient(s.dir + "/control.sock")
	text, err := tool.picture(t.Context(), client, &listing{filter: &filter{}, limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  1 message waiting, 1 held, 2.0KB, the oldest received 2h ago\n",
		"\nattempts: 1 under way; since the start 4 delivered, 3 deferred, 2 failed\n",
		"\nGROUP         ATTEMPTS  AT MOST  MORE WAIT\nslow.example  2         2        since 2m\ngoogle.com    4         9        -\n",
		"\nID        SIZE  RECEIVED  STATE    NEXT   SENDER          RECIPIENTS\nAAAAAAAA  48B ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "BBBBBBBB") || strings.Contains(text, "not well") {
		t.Errorf("too much in\n%s", text)
	}
	s.health.Failure = "broken"
	if text, _ = tool.picture(t.Context(), client, &listing{filter: &filter{}}); !strings.HasPrefix(text, "the queue is not well: see `relay-util status`\n") {
		t.Errorf("a sick queue is\n%s", text)
	}
}

// TestInterruptedExportLeavesNoHalfFile: what was whole by then stays.
func TestInterruptedExportLeavesNoHalfFile(t *testing.T) {
	dir := t.TempDir()
	err := newPrivateFile(dir+"/half", func(w io.Writer) error {
		w.Write([]byte("half"))
		return context.Canceled
	})
	if there, _ := os.ReadDir(dir); !errors.Is(err, context.Canceled) || len(there) > 0 {
		t.Errorf("%v, %v", there, err)
	}
}
