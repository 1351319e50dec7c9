package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/address"
	"relayd/control"
	"relayd/problem"
	"relayd/queue"
)

// A fakeDaemon has a queue of envelopes and writes down what it is told to do.
type fakeDaemon struct {
	envelopes []*queue.Envelope
	problems  problem.List
	done      []string
}

func (f *fakeDaemon) Status() control.Status {
	return control.Status{
		Version: "1.2", Hostname: "mx.example.com", Started: time.Now().Add(-150 * time.Minute),
		Listeners:   []control.Listener{{Service: "smtp", Address: ":25"}, {Service: "submission", Address: ":587"}},
		Connections: 3,
		Queue:       control.QueueStatus{Messages: len(f.envelopes), Held: 1, Oldest: time.Now().Add(-150 * time.Minute)},
		Domains:     []control.DomainStatus{{Name: "example.org", Users: 1, Aliases: 2}},
		Certs:       []control.Certificate{{Names: []string{"mx.example.com"}, Expires: time.Now().Add(100 * time.Hour), SelfSigned: true}},
		Problems:    f.problems,
		Warnings:    problem.List{problem.At("x", 0, "look here")},
	}
}

func (f *fakeDaemon) Reload() problem.List {
	f.done = append(f.done, "reload")
	return f.problems
}

func (f *fakeDaemon) List(yield func(*queue.Envelope) bool) {
	for _, e := range f.envelopes {
		if !yield(e) {
			return
		}
	}
}

func (f *fakeDaemon) Get(id string) (*queue.Envelope, error) {
	for _, e := range f.envelopes {
		if e.ID == id {
			return e, nil
		}
	}
	return nil, queue.ErrNotFound
}

func (f *fakeDaemon) Body(string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("Subject: \x1b[31mred\r\nFrom: a@example.org\r\n\r\nbody\r\n")), nil
}

func (f *fakeDaemon) change(verb, id string) error {
	_, err := f.Get(id)
	if err == nil {
		f.done = append(f.done, verb+" "+id)
	}
	return err
}

func (f *fakeDaemon) Retry(id string) error   { return f.change("retry", id) }
func (f *fakeDaemon) Hold(id string) error    { return f.change("hold", id) }
func (f *fakeDaemon) Release(id string) error { return f.change("release", id) }
func (f *fakeDaemon) Remove(id string) error  { return f.change("remove", id) }

// A site is an installation with a fake daemon that runs.
type site struct {
	*testing.T
	*fakeDaemon
	dir string
}

// newSite makes a folder with one domain. Its path is short, since a socket lies in it.
func newSite(t *testing.T) *site {
	dir, err := os.MkdirTemp("", "ru")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t, &fakeDaemon{}, dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.write("relayd.toml", fmt.Sprintf("hostname = \"mx.example.com\"\nstate_dir = %q\n[auth]\nbcrypt_cost = 4\n", dir))
	s.write("domains/example.org/aliases", "a: b@example.net\n")
	server := control.NewServer(s, s, slog.New(slog.DiscardHandler))
	l, err := control.Listen(filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) write(name, text string) {
	s.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

// run runs a command line, which must exit with code.
func (s *site) run(code int, line string) (stdout, stderr string) {
	s.Helper()
	var out, err bytes.Buffer
	args := append(strings.Fields(line), "-c", filepath.Join(s.dir, "relayd.toml"))
	if got := run(context.Background(), args, streams{strings.NewReader(""), &out, &err}); got != code {
		s.Fatalf("%s: exit code %d, want %d\n%s%s", line, got, code, &out, &err)
	}
	return out.String(), err.String()
}

func mustParse(s string) address.Address {
	a, err := address.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

// twoMessages are one that waits and one that is held.
func twoMessages(now time.Time) []*queue.Envelope {
	return []*queue.Envelope{{
		ID: "AAAAAAAA", Received: now.Add(-150 * time.Minute), Sender: mustParse("me@example.org"), User: mustParse("me@example.org"), Size: 2048,
		Recipients: []queue.Recipient{{
			Address: mustParse("you@gmail.com"), Alias: mustParse("shop@example.org"),
			Status: queue.Status{
				State: queue.Waiting, Attempts: 2, Next: now.Add(270 * time.Second), LastTry: now.Add(-61 * time.Minute),
				LastHost: "mx.google.com", LastReply: "421 4.7.28 slow\x1b[31m down",
			},
		}},
	}, {
		ID: "BBBBBBBB", Received: now.Add(-30 * time.Second),
		Recipients: []queue.Recipient{
			{Address: mustParse("a@x.example"), Status: queue.Status{State: queue.Held}},
			{Address: mustParse("b@x.example"), Status: queue.Status{State: queue.Delivered}},
			{Address: mustParse("c@x.example"), Status: queue.Status{State: queue.Held}},
			{Address: mustParse("d@x.example"), Status: queue.Status{State: queue.Held}},
			{Address: mustParse("e@x.example"), Status: queue.Status{State: queue.Held}},
		},
	}}
}

func TestQueueList(t *testing.T) {
	s := newSite(t)
	if out, _ := s.run(0, "queue-list"); out != "nothing waits\n" {
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
		strings.Fields("AAAAAAAA 2.0KB 2h ago waiting in 4m me@example.org you@gmail.com"),
		strings.Fields("BBBBBBBB 0B 30s ago held - <> a@x.example, c@x.example, d@x.example, and 1 more"),
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
		{"queue-hold AAAAAAAA --json", "{\n  \"ids\": [\n    \"AAAAAAAA\"\n  ]\n}\n", 0, "hold AAAAAAAA"},
		{"queue-hold --domain nowhere.example --json", "{\n  \"ids\": []\n}\n", 0, ""},
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

func TestStatusAndReload(t *testing.T) {
	s := newSite(t)
	if out, _ := s.run(0, "reload"); out != "all files are in force\n" {
		t.Errorf("reload: %q", out)
	}
	if out, _ := s.run(0, "reload --json"); out != "[]\n" {
		t.Errorf("reload: %q", out)
	}
	s.problems = problem.List{problem.At("/x/users", 3, "wrong"), problem.At("/x/aliases", 1, "wrong, too")}
	if out, _ := s.run(1, "reload"); out != "/x/users:3: wrong\n/x/aliases:1: wrong, too\n" {
		t.Errorf("reload: %q", out)
	}
	if out, _ := s.run(1, "reload --json"); !strings.Contains(out, `"line": 3`) {
		t.Errorf("reload: %q", out)
	}
	out, _ := s.run(0, "status")
	for _, want := range []string{
		"relayd       1.2 on mx.example.com, started 2h ago\n", "listens on   smtp :25, submission :587\n", "connections  3\n",
		"queue        0 messages, 1 held, the oldest received 2h ago\n", "certificate  mx.example.com, expires in 4d, self-signed\n",
		"example.org  1      2        0          unsigned\n", "\nproblems (see `relayd -check`):\n/x/users:3: wrong\n", "warnings:\nx: look here\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _ = s.run(0, "--json status")
	var status control.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Connections != 3 {
		t.Errorf("%v in %s", err, out)
	}
}

func TestSettingsWithAMistakeDoNotCutOffTheDaemon(t *testing.T) {
	s := newSite(t)
	s.envelopes = twoMessages(time.Now())
	mistakes := map[string]string{
		"a key that is not known": fmt.Sprintf("hostname = \"mx.example.com\"\nstate_dir = %q\nhostnam = 1\n", s.dir),
		"no TOML":                 fmt.Sprintf("hostname = mx.example.com\nstate_dir = %q\n[listen\n", s.dir),
	}
	for name, text := range mistakes {
		s.write("relayd.toml", text)
		for _, line := range []string{"status", "reload", "queue-list", "queue-show AAAAAAAA", "queue-hold AAAAAAAA"} {
			_, errs := s.run(0, line)
			want := fmt.Sprintf("relay-util: warning: %[1]s/relayd.toml has problems, shown below; going on with state_dir %[1]s\n%[1]s/relayd.toml:", s.dir)
			if !strings.HasPrefix(errs, want) {
				t.Errorf("%s: %s: printed %q", name, line, errs)
			}
		}
		for _, line := range []string{"alias-add c@example.org d@example.net", "user-add me@example.org --password=x", "domain-add second.example"} {
			if _, errs := s.run(1, line); !strings.HasPrefix(errs, s.dir+"/relayd.toml:") {
				t.Errorf("%s: %s: printed %q", name, line, errs)
			}
		}
	}
	if err := os.Remove(s.dir + "/relayd.toml"); err != nil {
		t.Fatal(err)
	}
	if _, errs := s.run(1, "status"); !strings.Contains(errs, "there is no settings file") {
		t.Errorf("without settings: printed %q", errs)
	}
}

func TestEditsTellTheDaemon(t *testing.T) {
	s := newSite(t)
	for _, line := range []string{
		"user-add me@example.org --password=x", "user-disable me@example.org", "user-remove me@example.org",
		"alias-add c@example.org d@example.net", "alias-remove c@example.org",
		"dkim-keygen example.org --algo ed25519", "domain-add second.example", "domain-remove second.example --yes",
	} {
		s.done = nil
		if _, errs := s.run(0, line); errs != "" || !slices.Equal(s.done, []string{"reload"}) {
			t.Errorf("%s: told the daemon %q, printed %q", line, s.done, errs)
		}
	}
	for _, line := range []string{"user-remove nobody@example.org", "alias-add a@example.org b@example.net", "user-list", "authenticate me@example.org --password=x"} {
		s.done = nil
		if run(context.Background(), append(strings.Fields(line), "-c", s.dir+"/relayd.toml"), streams{nil, io.Discard, io.Discard}); s.done != nil {
			t.Errorf("%s told the daemon %q", line, s.done)
		}
	}
}

func TestProblemsWithTheEditedFileAreTold(t *testing.T) {
	s := newSite(t)
	s.problems = problem.List{
		problem.At(s.dir+"/domains/example.org/aliases", 1, "this one"),
		problem.At(s.dir+"/domains/example.org/users", 1, "another"),
	}
	_, errs := s.run(0, "alias-add c@example.org d@example.net")
	if want := s.dir + "/domains/example.org/aliases:1: this one\n"; errs != want {
		t.Errorf("printed %q", errs)
	}
}

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	s := newSite(t)
	r, w := io.Pipe()
	r.Close()
	args := []string{"domain-list", "-c", s.dir + "/relayd.toml"}
	if code := run(context.Background(), args, streams{nil, w, io.Discard}); code != 1 {
		t.Errorf("exit code %d", code)
	}
}
