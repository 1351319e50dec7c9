package filter

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serveRspamd runs what stands for rspamd, and returns its URL.
func serveRspamd(t testing.TB, answer http.HandlerFunc) string {
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL
}

func saying(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func TestRspamdAnswers(t *testing.T) {
	const action = `{"is_skipped":false,"score":7.5,"required_score":15,"symbols":{"A":{"score":1}},"action":%q,"messages":{},"message-id":"x"}`
	for _, c := range []struct {
		answer          string
		normal, strict  string // codes of the refusals
		trouble, logged string
	}{
		{fmt.Sprintf(action, "no action"), "", "", "", "[rspamd no action score 7.5]"},
		{fmt.Sprintf(action, "greylist"), "451 4.7.1", "451 4.7.1", "", "[rspamd greylist score 7.5]"},
		{fmt.Sprintf(action, "soft reject"), "451 4.7.1", "451 4.7.1", "", "[rspamd soft reject score 7.5]"},
		{fmt.Sprintf(action, "add header"), "", "550 5.7.1", "", "[rspamd add header score 7.5]"},
		{fmt.Sprintf(action, "rewrite subject"), "", "550 5.7.1", "", "[rspamd rewrite subject score 7.5]"},
		{fmt.Sprintf(action, "reject"), "550 5.7.1", "550 5.7.1", "", "[rspamd reject score 7.5]"},
		{fmt.Sprintf(action, "quarantine"), "", "", "", "[rspamd quarantine score 7.5]"},
		{`{"action":"a\nb\u00fc"}`, "", "", "", "[rspamd a b?? score 0]"},
		{`{"score":99}`, "", "", "its answer names no action", "[]"},
		{`{"action":"reject"`, "", "", "its answer is none of rspamd's", "[]"},
		{`{"action":5}`, "", "", "its answer is none of rspamd's", "[]"},
		{`[]`, "", "", "its answer is none of rspamd's", "[]"},
		{`{"action":"reject","x":"` + strings.Repeat("x", maxAnswer) + `"}`, "", "", "its answer is larger than", "[]"},
		{"", "", "", "its answer is none of rspamd's", "[]"},
	} {
		for strict, want := range map[bool]string{false: c.normal, true: c.strict} {
			r := newRig(t, "", Options{Rspamd: serveRspamd(t, saying(c.answer))})
			m := r.message(spam)
			m.Strict = strict
			said, err := r.Judge(t.Context(), m)
			code := ""
			if err != nil {
				code = err.Error()[:9]
			}
			if code != want || fmt.Sprint(said) != c.logged || (r.Counts().Rspamd == 1) != (want != "") {
				t.Errorf("%.60s, strict %v: %q, %v, %+v", c.answer, strict, code, said, r.Counts())
			}
			if c.trouble == "" {
				r.warns("", 0)
			} else {
				r.warns("filter rspamd, since 2026-06-01T12:00:00Z: mail passes without it: "+c.trouble, 1)
			}
		}
	}
}

// TestRspamdIsTold: the message as it came, byte for byte, and what it came with. Nothing that a client
// says makes a request that cannot be sent.
func TestRspamdIsTold(t *testing.T) {
	var got *http.Request
	var body string
	answer := func(w http.ResponseWriter, req *http.Request) {
		text, _ := io.ReadAll(req.Body)
		got, body = req, string(text)
		io.WriteString(w, `{"action":"no action"}`)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	unix := &http.Server{Handler: http.HandlerFunc(answer)}
	go unix.Serve(l)
	defer unix.Close()
	for _, url := range []string{serveRspamd(t, answer), serveRspamd(t, answer) + "/", "unix:" + path} {
		got = nil
		r := newRig(t, "", Options{Rspamd: url, Password: "hunter2"})
		if said := r.judge(r.message(spam)); said != "" || got == nil {
			t.Fatalf("%s: %q, %v", url, said, r.Warnings())
		}
		if got.Method != "POST" || got.URL.Path != "/checkv2" || got.ContentLength != int64(len(spam)) || body != spam {
			t.Errorf("%s %s %d %q", got.Method, got.URL, got.ContentLength, body)
		}
		for name, want := range map[string]string{
			"IP": "192.0.2.7", "Helo": "he??lo", "Hostname": "mail.elsewhere.test", "From": `<"ä s"@elsewhere.test>`, "Queue-Id": "ABCDEFGH1",
			"MTA-Name": "mx.example.test", "Password": "hunter2", "User": "",
		} {
			if v := got.Header.Get(name); v != want {
				t.Errorf("%s: %q", name, v)
			}
		}
		if list := got.Header.Values("Rcpt"); !slices.Equal(list, []string{"<shop@example.test>", "<me@example.test>"}) {
			t.Errorf("%q", list)
		}
	}
	r := newRig(t, "", Options{Rspamd: serveRspamd(t, answer)})
	m := r.message(spam)
	m.Name = ""
	m.Sender.Local, m.Sender.Domain = "", ""
	if r.judge(m); got.Header.Get("From") != "<>" || got.Header["Hostname"] != nil || got.Header["Password"] != nil {
		t.Errorf("%v", got.Header)
	}
}

// Mail passes by an rspamd that is down or ill, and the admin is told until it is well again.
func TestRspamdDown(t *testing.T) {
	var answer atomic.Pointer[http.HandlerFunc]
	will := func(f http.HandlerFunc) { answer.Store(&f) }
	will(http.NotFound)
	url := serveRspamd(t, func(w http.ResponseWriter, req *http.Request) { (*answer.Load())(w, req) })
	r := newRig(t, "", Options{Rspamd: url})
	m := r.message(spam)
	for range 5 {
		if said := r.judge(m); said != "" {
			t.Error(said)
		}
	}
	r.warns("it answers 404 Not Found", 1)
	will(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, url+"/elsewhere", http.StatusTemporaryRedirect)
	})
	r.judge(m)
	r.warns("it answers 307 Temporary Redirect", 1)
	will(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	r.judge(m)
	r.warns("EOF", 1)
	will(saying(`{"action":"no action"}`))
	r.judge(m)
	r.warns("", 1)

	r = newRig(t, "", Options{Rspamd: "http://127.0.0.1:1"})
	if said := r.judge(m); said != "" {
		t.Error(said)
	}
	r.warns("connection refused", 1)
}

// A session that ends, as they do when relayd goes down, is no fault of rspamd's; one that waits in
// vain for a slot is.
func TestRspamdOverloaded(t *testing.T) {
	started, done := make(chan struct{}, maxAtOnce), make(chan struct{})
	r := newRig(t, "", Options{Rspamd: serveRspamd(t, func(w http.ResponseWriter, _ *http.Request) {
		started <- struct{}{}
		<-done
		io.WriteString(w, `{"action":"no action"}`)
	})})
	ended := make(chan struct{}, maxAtOnce)
	for range maxAtOnce {
		go func() { r.judge(r.message(spam)); ended <- struct{}{} }()
	}
	for range maxAtOnce {
		<-started
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.rspamd.check(ctx, r.message(spam)); err == nil || !strings.Contains(err.Error(), "50 messages at once") {
		t.Error(err)
	}
	if _, err := r.Judge(ctx, r.message(spam)); err != nil {
		t.Error(err)
	}
	r.warns("", 0)
	close(done)
	for range maxAtOnce {
		<-ended
	}
}

// With rspamd there is a better judge of a suspect than the clock; without its answer there is not.
func TestSuspectAndRspamd(t *testing.T) {
	said := `{"action":"add header","score":7}`
	r := newRig(t, "", Options{Rspamd: serveRspamd(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, said) })})
	m := r.message(spam)
	for n, want := range []string{"", "", "", "550 5.7.1 "} {
		if got := r.judge(m); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("after %d refusals: %q", n, got)
		}
		r.Refused(m.Source)
	}
	if said = `{"action":"no action"}`; r.judge(m) != "" {
		t.Error("ham of a suspect is refused")
	}
	if said = "ill"; !strings.HasPrefix(r.judge(m), "450 4.7.1 ") {
		t.Error("a suspect passes where rspamd is ill")
	}
	if c := r.Counts(); c.Suspect != 1 || c.Rspamd != 1 {
		t.Errorf("%+v", c)
	}
}

func FuzzParseScore(f *testing.F) {
	for _, s := range []string{`{"action":"reject","score":15.2}`, `{"action":null}`, `{"ACTION":"x","score":1e999}`, `[`, `{"action":"\u0000\ud800"}`, ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseScore(text)
		if err != nil {
			return
		}
		if s.Action == "" || s.Action != clean(s.Action, 40) {
			t.Errorf("%q: %q", text, s.Action)
		}
		if normal, strict := s.refusal(false), s.refusal(true); normal != nil && strict != normal {
			t.Errorf("%q: strict is milder", s.Action)
		}
	})
}
