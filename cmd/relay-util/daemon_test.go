package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/address"
	"relayd/control"
	"relayd/follow"
	"relayd/problem"
	"relayd/queue"
)

// A fakeDaemon has a queue of envelopes and writes down what it is told to do.
type fakeDaemon struct {
	envelopes          []*queue.Envelope
	problems, warnings problem.List
	health             control.Health
	acme               []control.ACME
	groups             []queue.GroupStatus
	destinations       []control.Destination
	bans               []control.Ban
	report             queue.Report
	damaged            string         // the ID of a message that cannot be read
	sent               []follow.Event // what follows from sending; nil: it is refused
	done               []string
}

func (f *fakeDaemon) Status() control.Status {
	return control.Status{
		Version: "1.2", Hostname: "mx.example.com", Started: time.Now().Add(-150 * time.Minute),
		Listeners:   []control.Listener{{Service: "smtp", Address: ":25"}, {Service: "submission", Address: ":587"}},
		Connections: 3, Filters: control.Filters{Uses: []string{"zen.test", "rspamd"}, DNSBL: 1, Rspamd: 2, Milter: 3, Suspect: 4},
		Queue: control.QueueStatus{
			Messages: len(f.envelopes), Held: 1, Oldest: time.Now().Add(-150 * time.Minute), Bytes: 2048,
			Attempts: control.Attempts{Delivered: 4, Deferred: 3, Failed: 2, Running: 1},
			Log:      control.LogStatus{Segments: 2, Syncs: 4, Commits: 9, SyncSeconds: 0.01},
		},
		Health:   f.health,
		Domains:  []control.DomainStatus{{Name: "example.org", Users: 1, Aliases: 2}},
		Certs:    []control.Certificate{{Names: []string{"mx.example.com"}, Expires: time.Now().Add(100 * time.Hour), SelfSigned: true}},
		ACME:     f.acme,
		Problems: f.problems,
		Warnings: append(problem.List{problem.At("x", 0, "look here")}, f.warnings...),
	}
}

func (f *fakeDaemon) Reload() problem.List {
	f.done = append(f.done, "reload")
	return f.problems
}

func (f *fakeDaemon) Destinations() []control.Destination { return f.destinations }

func (f *fakeDaemon) Bans(sel control.BanSelection) (list []control.Ban) {
	for _, b := range f.bans {
		if sel.Name == "" || sel.Name == b.Name {
			list = append(list, b)
		}
	}
	return list
}

func (f *fakeDaemon) Unban(sel control.BanSelection) []control.Ban {
	lifted := f.Bans(sel)
	f.bans = slices.DeleteFunc(f.bans, func(b control.Ban) bool { return slices.Contains(lifted, b) })
	return lifted
}

func (f *fakeDaemon) Search(_ string, yield func(*queue.Envelope) bool) {
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

// aMessage is what each of twoMessages looks like.
const aMessage = "Subject: \x1b[31mred\r\nFrom: a@example.org\r\n\r\nbody\r\n"

func (f *fakeDaemon) Body(id string) (io.ReadCloser, error) {
	if id == f.damaged {
		return nil, errors.New("its sum is wrong")
	}
	return io.NopCloser(strings.NewReader(aMessage)), nil
}

func (f *fakeDaemon) Groups() []queue.GroupStatus { return f.groups }

func (f *fakeDaemon) Send(_ context.Context, env control.Sending, msg io.Reader) (*control.Sent, error) {
	text, err := io.ReadAll(msg)
	if err != nil || f.sent == nil {
		return nil, errors.Join(err, errors.New("550 5.7.1 nothing is taken here"))
	}
	f.done = append(f.done, fmt.Sprintf("send %s %s\n%s", env.From, env.To, text))
	events := make(chan follow.Event, len(f.sent))
	for _, e := range f.sent[1:] {
		events <- e
	}
	return &control.Sent{Queued: f.sent[0], Events: events, Stop: func() {}}, nil
}

func (f *fakeDaemon) CheckQueue(_ context.Context, progress func(done, total int64)) (*queue.Report, error) {
	progress(f.report.Bytes, f.report.Bytes)
	return &f.report, nil
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
		ID: "AAAAAAAA", Received: now.Add(-150 * time.Minute), Sender: mustParse("me@example.org"), User: mustParse("me@example.org"), Size: int64(len(aMessage)),
		Recipients: []queue.Recipient{{
			Address: mustParse("you@gmail.com"), Alias: mustParse("shop@example.org"),
			Status: queue.Status{
				State: queue.Waiting, Attempts: 2, Next: now.Add(270 * time.Second), LastTry: now.Add(-61 * time.Minute),
				LastHost: "mx.google.com", LastReply: "421 4.7.28 slow\x1b[31m down",
			},
		}},
	}, {
		ID: "BBBBBBBB", Received: now.Add(-30 * time.Second), Size: int64(len(aMessage)),
		Recipients: []queue.Recipient{
			{Address: mustParse("a@x.example"), Status: queue.Status{State: queue.Held}},
			{Address: mustParse("b@x.example"), Status: queue.Status{State: queue.Delivered}},
			{Address: mustParse("c@x.example"), Status: queue.Status{State: queue.Held}},
			{Address: mustParse("d@x.example"), Status: queue.Status{State: queue.Held}},
			{Address: mustParse("e@x.example"), Status: queue.Status{State: queue.Held}},
		},
	}}
}

func TestStatusAndReload(t *testing.T) {
	s := newSite(t)
	s.envelopes = twoMessages(time.Now())
	if out, _ := s.run(0, "reload"); out != "all files are in force\n" {
		t.Errorf("reload: %q", out)
	}
	if out, _ := s.run(0, "reload --json"); out != "[]\n" {
		t.Errorf("reload: %q", out)
	}
	s.warnings = problem.List{problem.At("/etc/relayd/relayd.toml", 0, "restart it"), problem.At("/x/users", 0, "open")}
	if out, _ := s.run(0, "reload"); out != "/etc/relayd/relayd.toml: restart it\n" {
		t.Errorf("reload: %q", out)
	}
	s.warnings = nil
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
		"queue        2 messages of 2.0KB, 1 held, the oldest received 2h ago\n",
		"filters      zen.test, rspamd; since the start refused 1 by DNS list, 2 by rspamd, 3 by milter, 4 put off\n",
		"attempts     1 under way; since the start 4 delivered, 3 deferred, 2 failed\n",
		"queue log    2 segments; since the start 9 changes in 4 syncs of 2.5 ms\n", "certificate  mx.example.com, expires in 4d, self-signed\n",
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

func TestStatusOfASickQueue(t *testing.T) {
	s := newSite(t)
	if out, _ := s.run(0, "status"); !strings.HasPrefix(out, "relayd") {
		t.Errorf("when all is well:\n%s", out)
	}
	s.health = control.Health{Failure: "a sync failed: input/output error"}
	out, _ := s.run(1, "status")
	if !strings.HasPrefix(out, "NO MAIL IS TAKEN") || !strings.Contains(out, "  a sync failed: input/output error\n") || !strings.Contains(out, "systemctl restart relayd") {
		t.Errorf("after a failed sync:\n%s", out)
	}
	s.health = control.Health{Damaged: []string{"/q/damaged/1.log", "/q/damaged/2.log"}}
	out, _ = s.run(1, "status")
	if !strings.HasPrefix(out, "THE QUEUE WAS DAMAGED") || !strings.Contains(out, "  /q/damaged/1.log\n  /q/damaged/2.log\n  Find out what is hit: relay-util queue-check\n\nrelayd ") {
		t.Errorf("after damage:\n%s", out)
	}
	out, _ = s.run(1, "status --json")
	var status control.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil || !slices.Equal(status.Health.Damaged, s.health.Damaged) {
		t.Errorf("%v in %s", err, out)
	}
}

func TestStatusOfCertificates(t *testing.T) {
	s := newSite(t)
	in := func(d time.Duration) time.Time { return time.Now().Add(d + time.Minute) }
	s.acme = []control.ACME{
		{Name: "mx.example.com", Expires: in(960 * time.Hour), Next: in(480 * time.Hour)},
		{Name: "a.example.com", Expires: in(240 * time.Hour), Next: in(2 * time.Hour), Error: "no\nroute", Since: time.Now().Add(-50 * time.Hour), Urgent: true, Text: "the certificate runs out"},
		{Name: "b.example.com", Next: in(2 * time.Hour)},
	}
	out, _ := s.run(0, "status")
	for _, want := range []string{
		"ACME         mx.example.com, renewal in 20d\n", "ACME         a.example.com, next try in 2h, fails since 2d ago: no route\n",
		"ACME         b.example.com, no certificate yet, next try in 2h\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if !strings.HasPrefix(out, "CERTIFICATE: the certificate runs out.\n  Mend") || strings.Count(out, "CERTIFICATE") != 1 {
		t.Errorf("what is urgent:\n%s", out)
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
