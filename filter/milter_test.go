package filter

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	protocol "github.com/emersion/go-milter"
)

// A scripted milter notes what it is told and answers what a test has it say, by the stage: connect,
// helo, mail, rcpt ADDRESS, header NAME, headers, body, end.
type scripted struct {
	says map[string]protocol.Response

	mu    sync.Mutex
	heard []string
}

func (s *scripted) hear(stage, about string) (protocol.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = append(s.heard, strings.TrimSpace(stage+" "+about))
	for _, key := range []string{strings.TrimSpace(stage + " " + about), stage} {
		if r := s.says[key]; r != nil {
			return r, nil
		}
	}
	return protocol.RespContinue, nil
}

func (s *scripted) Connect(host, family string, _ uint16, ip net.IP, _ *protocol.Modifier) (protocol.Response, error) {
	return s.hear("connect", fmt.Sprint(host, " ", family, " ", ip))
}
func (s *scripted) Helo(name string, _ *protocol.Modifier) (protocol.Response, error) {
	return s.hear("helo", name)
}
func (s *scripted) MailFrom(from string, m *protocol.Modifier) (protocol.Response, error) {
	return s.hear("mail", from+" "+m.Macros["i"])
}
func (s *scripted) RcptTo(to string, _ *protocol.Modifier) (protocol.Response, error) {
	return s.hear("rcpt", to)
}
func (s *scripted) Header(name, value string, _ *protocol.Modifier) (protocol.Response, error) {
	return s.hear("header", fmt.Sprintf("%s=%q", name, value))
}
func (s *scripted) Headers(textproto.MIMEHeader, *protocol.Modifier) (protocol.Response, error) {
	return s.hear("headers", "")
}
func (s *scripted) BodyChunk(chunk []byte, _ *protocol.Modifier) (protocol.Response, error) {
	if len(chunk) > 100 {
		return s.hear("body", fmt.Sprint(len(chunk)))
	}
	return s.hear("body", fmt.Sprintf("%q", chunk))
}
func (s *scripted) Body(m *protocol.Modifier) (protocol.Response, error) {
	m.AddHeader("X-Spam", "yes")
	m.ReplaceBody([]byte("other"))
	m.DeleteRecipient("<shop@example.test>")
	return s.hear("end", m.Macros["i"])
}
func (s *scripted) Abort(*protocol.Modifier) error { return nil }

// serveMilter runs a milter and returns its name in the settings.
func serveMilter(t testing.TB, s *scripted, omits protocol.OptProtocol) string {
	path := filepath.Join(t.TempDir(), "m")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	srv := &protocol.Server{NewMilter: func() protocol.Milter { return s }, Actions: protocol.OptAddHeader, Protocol: omits}
	go srv.Serve(l)
	return "unix:" + path
}

func TestMilterIsTold(t *testing.T) {
	s := &scripted{}
	r := newRig(t, "", Options{Milters: []string{serveMilter(t, s, 0)}})
	m := r.message(spam)
	if said := r.judge(m); said != "" {
		t.Fatalf("%s, %v", said, r.Warnings())
	}
	want := []string{
		"connect mail.elsewhere.test tcp4 192.0.2.7", "helo he??lo", `mail "ä s"@elsewhere.test ABCDEFGH1`, "rcpt shop@example.test", "rcpt me@example.test",
		`header From="a@elsewhere.test"`, `header Subject="buy\n\tnow"`, `header X-Odd="?x"`, "headers", `body "Buy now.\r\n.\r\nMore.\r\n"`, "end ABCDEFGH1",
	}
	if got := strings.Join(s.heard, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("heard\n%s", got)
	}
	r.warns("", 0)

	s = &scripted{}
	r = newRig(t, "", Options{Milters: []string{serveMilter(t, s, protocol.OptNoHelo|protocol.OptNoBody)}})
	m = r.message("Subject: x\r\n\r\n" + strings.Repeat("x", 3*protocol.MaxBodyChunk))
	m.IP, m.Name = m.IP.Next(), ""
	if said := r.judge(m); said != "" || s.heard[0] != "connect [192.0.2.8] tcp4 192.0.2.8" || strings.Contains(strings.Join(s.heard, " "), "helo") {
		t.Errorf("%q, heard %q", said, s.heard)
	}

	s = &scripted{}
	r = newRig(t, "", Options{Milters: []string{serveMilter(t, s, 0)}})
	if said := r.judge(r.message("Subject: x\r\n\r\n" + strings.Repeat("x", 2*protocol.MaxBodyChunk+1000))); said != "" ||
		strings.Join(s.heard[len(s.heard)-4:], " ") != "body 65535 body 65535 body 1000 end ABCDEFGH1" {
		t.Errorf("%q, heard %q", said, s.heard)
	}
}

func TestMilterAnswers(t *testing.T) {
	word := func(text string) protocol.Response { return protocol.NewResponseStr('y', text) }
	for _, c := range []struct {
		stage  string
		says   protocol.Response
		want   string // "" where the message passes
		never  string // a stage that is not come to
		warned string
	}{
		{"end", protocol.RespReject, "550 5.7.1 A filter of this server does not take the message", "", ""},
		{"end", protocol.RespDiscard, "550 5.7.1 A filter of this server does not take the message", "", ""},
		{"end", protocol.RespTempFail, "451 4.7.1 A filter of this server does not take the message now, please try again later", "", ""},
		{"end", protocol.RespAccept, "", "", ""},
		{"end", word("554 5.7.0 Infected: 100%% Eicar\r\n250 Ok"), "554 5.7.0 Infected: 100% Eicar 250 Ok", "", ""},
		{"end", word("421 wait"), "421 4.7.1 wait", "", ""},
		{"end", word("250 2.0.0 fine"), "", "", "a code that refuses nothing"},
		{"end", word("xyz abc"), "", "", "malformed SMTP code"},
		{"end", protocol.NewResponse('?', nil), "", "", "unexpected code"},
		{"connect", protocol.RespReject, "550 5.7.1 A filter of this server does not take the message", "helo", ""},
		{"helo", protocol.RespAccept, "", "mail", ""},
		{"mail", protocol.RespTempFail, "451 4.7.1 A filter of this server does not take the message now, please try again later", "rcpt", ""},
		{"rcpt", word("550 5.1.1 no"), "550 5.1.1 no", "headers", ""},
		{"rcpt me@example.test", protocol.RespReject, "", "", ""},
		{"rcpt shop@example.test", protocol.RespAccept, "", "rcpt me@example.test", ""},
		{`header X-Odd="?x"`, protocol.RespReject, "550 5.7.1 A filter of this server does not take the message", "headers", ""},
		{"headers", protocol.RespReject, "550 5.7.1 A filter of this server does not take the message", "body", ""},
		{"body", protocol.RespDiscard, "550 5.7.1 A filter of this server does not take the message", "end", ""},
	} {
		t.Run(c.stage+" "+c.want, func(t *testing.T) {
			s, after := &scripted{says: map[string]protocol.Response{c.stage: c.says}}, &scripted{}
			r := newRig(t, "", Options{Milters: []string{serveMilter(t, s, 0), serveMilter(t, after, 0)}})
			said := r.judge(r.message(spam))
			if said != c.want || (r.Counts().Milter == 1) != (c.want != "") || (len(after.heard) == 0) != (c.want != "") {
				t.Errorf("%q, %+v", said, r.Counts())
			}
			for _, heard := range s.heard {
				if c.never != "" && strings.HasPrefix(heard, c.never) {
					t.Errorf("heard %q", s.heard)
				}
			}
			if c.warned == "" {
				r.warns("", 0)
			} else {
				r.warns(c.warned, 1)
			}
		})
	}
}

// Mail passes by a milter that is down or ill, to the next one.
func TestMilterDown(t *testing.T) {
	good := &scripted{says: map[string]protocol.Response{"end": protocol.RespReject}}
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		for {
			conn, err := mute.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "\x00\x00\x00\x05O\x00\x00\x00\x06")
			conn.Close()
		}
	}()
	r := newRig(t, "", Options{Milters: []string{"unix:/nowhere", "inet:" + mute.Addr().String(), serveMilter(t, good, 0)}})
	for range 3 {
		if said := r.judge(r.message(spam)); !strings.HasPrefix(said, "550 5.7.1 ") {
			t.Errorf("%q", said)
		}
	}
	r.warns("filter milter inet:"+mute.Addr().String(), 2)
	r.warns("filter milter unix:/nowhere, since 2026-06-01T12:00:00Z: mail passes without it: ", 2)
}

// A milter that says nothing has its connection closed when the session ends.
func TestMilterSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
		}
		closed <- err
	}()
	r := newRig(t, "", Options{Milters: []string{"inet:" + l.Addr().String()}})
	m := newMilter("inet:"+l.Addr().String(), "mx.example.test")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if refusal, err := m.ask(ctx, r.message(spam)); refusal != nil || err == nil {
		t.Errorf("%v, %v", refusal, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func FuzzFields(f *testing.F) {
	for _, s := range []string{"A: b\r\n c\r\nD:e\r\n", " x\r\n", "no colon\r\n", "A:\x00\r\n\t\x00", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, one := range fields(raw) {
			if strings.ContainsAny(one.name+one.value, "\x00") || strings.Contains(one.name, "\n") {
				t.Errorf("%q: %q", raw, one)
			}
		}
	})
}
