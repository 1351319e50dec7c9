package sendmail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"relayd/config"
	"relayd/message"
	"relayd/relay"
	"relayd/reply"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A house is a door with a relay behind it that writes down what it takes.
type house struct {
	t    *testing.T
	dir  string // the state folder
	stop func() // ends the door and waits for it
	opt  DoorOptions

	mu    sync.Mutex
	taken []string      // "sender to recipients: message"
	fail  error         // what the relay answers
	delay chan struct{} // closed when the relay may answer; nil: at once
	now   time.Time
}

func newHouse(t *testing.T) *house {
	dir, err := os.MkdirTemp("", "sm") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &house{t: t, dir: dir, now: time.Now()}
	h.opt = DoorOptions{
		StateDir: dir, Inbound: h, SpoolDir: t.TempDir(), MessageSize: 1000, Log: slog.New(slog.DiscardHandler),
		Rule: Rule{
			Sendmail: config.Sendmail{Domain: "example.test", Users: map[string][]string{
				"me": {"web@example.test", "*@granted.test"}, "all": {"*"}, "*": {"team@example.test"},
			}},
			Local: func(domain string) bool { return domain == "localhost" },
		},
		UserName: func(uid uint32) (string, error) { return "me", nil },
		Now:      func() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now },
	}
	return h
}

// open opens the door, until the test ends or stop is called.
func (h *house) open() {
	h.t.Helper()
	d, err := Open(h.opt)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(h.stop)
}

// Submit implements Inbound.
func (h *house) Submit(_ context.Context, s *relay.Submission, _ *relay.Transaction, m *message.Message) error {
	text, err := io.ReadAll(m.Reader())
	if err != nil {
		return err
	}
	if h.delay != nil {
		<-h.delay
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil && s.Sender.Local != "" {
		return h.fail
	}
	if bytes.Contains(text, []byte("poison")) {
		panic("poison")
	}
	var to []string
	for _, r := range s.Recipients {
		to = append(to, r.Address.String())
	}
	h.taken = append(h.taken, fmt.Sprintf("%s to %s: %s", s.Sender, strings.Join(to, " "), text))
	return nil
}

// send hands a message over as a program does.
func (h *house) send(text string, req Request) (Answer, error) {
	h.t.Helper()
	m, err := Read(strings.NewReader(text), &req, Options{TempDir: h.t.TempDir(), Limit: 1 << 20})
	if err != nil {
		h.t.Fatal(err)
	}
	defer m.Close()
	return HandOver(context.Background(), h.dir, &req, m)
}

func (h *house) messages() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.taken)
}

func TestDoor(t *testing.T) {
	h := newHouse(t)
	h.open()
	for _, c := range []struct {
		req        Request
		text, want string
	}{
		{Request{Recipients: []string{"root", "ROOT@localhost", "a@x.test"}}, "hi\n", "me@example.test to root@example.test a@x.test: From: me@example.test\r\n\r\nhi\r\n"},
		{Request{Recipients: []string{"a@x.test"}, Sender: "web@localhost", Name: "W\"eb"}, "To: root, b@localhost\n\n",
			"web@example.test to a@x.test: To: root@example.test, b@example.test\r\nFrom: \"W\\\"eb\" <web@example.test>\r\n\r\n"},
		{Request{Recipients: []string{"a@x.test"}, Sender: "<>", Name: "Jörg"}, "S: x\n\n", " to a@x.test: S: x\r\nFrom: =?utf-8?q?J=C3=B6rg?= <me@example.test>\r\n\r\n"},
	} {
		answer, err := h.send(c.text, c.req)
		got := h.messages()
		if err != nil || answer.Code != 250 || len(got) == 0 || got[len(got)-1] != c.want {
			t.Errorf("%+v: %v %v %q", c.req, answer, err, got)
		}
	}
	before := len(h.messages())
	for name, c := range map[string]struct {
		req  Request
		text string
		code int
		enh  string
	}{
		"a large message":  {Request{Recipients: []string{"a"}}, strings.Repeat("x", 1001), 552, "5.3.4"},
		"no address":       {Request{Recipients: []string{"a b@x"}}, "", 553, "5.1.3"},
		"no sender":        {Request{Recipients: []string{"a"}, Sender: "a b@x"}, "", 553, "5.1.7"},
		"a wrong DSN wish": {Request{Recipients: []string{"a"}, Notify: []string{"ALWAYS"}}, "", 501, "5.5.4"},
	} {
		if answer, err := h.send(c.text, c.req); err != nil || answer.Code != c.code || answer.Enhanced != c.enh {
			t.Errorf("%s: %v %v", name, answer, err)
		}
	}
	h.fail = reply.New(550, "5.7.1", "No")
	if answer, err := h.send("hi\n", Request{Recipients: []string{"a"}}); err != nil || answer.String() != "550 5.7.1 No" {
		t.Errorf("%v %v", answer, err)
	}
	if got := h.messages(); len(got) != before {
		t.Errorf("taken: %q", got[before:])
	}
}

// TestHalfAMessageIsNotTaken: a program that dies while it writes.
func TestHalfAMessageIsNotTaken(t *testing.T) {
	h := newHouse(t)
	h.open()
	conn, err := net.Dial("unix", socketIn(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s\n%s", `{"sender":"","recipients":["a"],"size":100}`, "Subject: half\r\n\r\n")
	conn.(*net.UnixConn).CloseWrite()
	answers, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answers), `"code":354`) || !strings.Contains(string(answers), `"code":451`) || len(h.messages()) != 0 {
		t.Errorf("%s %v, taken %q", answers, err, h.messages())
	}
}

// TestALoneDotIsNotTaken: not from sendmail, and not from a program that speaks to the relay itself. A line of a dot
// alone, which is stuffed on its way, is.
func TestALoneDotIsNotTaken(t *testing.T) {
	h := newHouse(t)
	h.open()
	for text, refused := range map[string]bool{"a\n\x00.\nb\n": true, "a\x00.\x00b\n": true, "a\r\x00.\r": true, "a\n.\nb\n": false, "a\r.\rb": false, "a\n.\x00\n": false} {
		text = "Subject: x\n\n" + text
		m, err := Read(strings.NewReader(text), &Request{Recipients: []string{"a"}}, Options{KeepDot: true, TempDir: t.TempDir(), Limit: 1 << 20})
		if errors.Is(err, message.ErrLoneDot) != refused || err != nil && !refused {
			t.Errorf("%q: sendmail says %v", text, err)
		}
		if err == nil {
			m.Close()
		}
		answer, err := submit(t.Context(), socketIn(h.dir), &Request{Recipients: []string{"a"}, Size: int64(len(text))}, strings.NewReader(text))
		if want := map[bool]string{true: "550 5.6.0", false: "250 2.0.0"}[refused]; err != nil || !strings.HasPrefix(answer.String(), want) {
			t.Errorf("%q: the door says %v, %v", text, answer, err)
		}
	}
}

// TestBusyGoesIntoTheDropFolder: what is too much at once is not lost, and comes later.
func TestBusyGoesIntoTheDropFolder(t *testing.T) {
	h := newHouse(t)
	h.delay = make(chan struct{})
	h.open()
	var conns []net.Conn
	for range maxOfUser {
		conn, err := net.Dial("unix", socketIn(h.dir))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	if answer, err := h.send("hi\n", Request{Recipients: []string{"a"}}); err != nil || answer != Dropped {
		t.Errorf("%v %v", answer, err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	close(h.delay)
	h.await(1)
}

// await waits for n messages.
func (h *house) await(n int) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); len(h.messages()) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%d of %d messages were taken", len(h.messages()), n)
		}
	}
}

func TestDropFolder(t *testing.T) {
	h := newHouse(t)
	if _, err := h.send("hi\n", Request{Recipients: []string{"a"}}); !errors.Is(err, ErrOff) {
		t.Errorf("where there is no folder: %v", err)
	}
	h.open()
	h.stop()
	if answer, err := h.send("first\n", Request{Recipients: []string{"a"}}); err != nil || answer != Dropped {
		t.Fatalf("%v %v", answer, err)
	}
	d := newDoor(h.opt)
	h.fail = reply.New(452, "4.3.1", "Full")
	h.look(d, 0, 1)
	h.fail = nil
	h.look(d, 0, 1) // it rests
	h.later(restFor)
	h.look(d, 1, 0)
	if got := h.messages()[0]; got != "me@example.test to a@example.test: From: me@example.test\r\n\r\nfirst\r\n" {
		t.Errorf("taken: %q", got)
	}
	if answer, err := h.send("second\n", Request{Recipients: []string{"a"}}); err != nil || answer != Dropped {
		t.Fatalf("%v %v", answer, err)
	}
	h.fail = reply.New(550, "5.7.1", "Never")
	h.look(d, 2, 0)
	if got := h.messages()[1]; !strings.HasPrefix(got, " to me@example.test: ") || !strings.Contains(got, "550 5.7.1 Never") {
		t.Errorf("told: %q", got)
	}
	unfinishedFile := filepath.Join(dropIn(h.dir), ".unfinished")
	if err := os.WriteFile(unfinishedFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.look(d, 2, 1)
	h.later(2 * unfinished)
	h.look(d, 2, 0)
}

// look has the door look into the folder, after which so many messages were taken and files are left.
func (h *house) look(d *Door, taken, left int) {
	h.t.Helper()
	if err := d.takeAll(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	files, err := os.ReadDir(dropIn(h.dir))
	if err != nil || len(files) != left || len(h.messages()) != taken {
		h.t.Fatalf("%v are left %v, taken %q", files, err, h.messages())
	}
}

func (h *house) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// TestModes: others may pass through the state folder and come to nothing else, until they are shut out.
func TestModes(t *testing.T) {
	h := newHouse(t)
	if err := errors.Join(os.Chmod(h.dir, 0o750), os.WriteFile(filepath.Join(h.dir, "secret"), nil, 0o644), os.Mkdir(filepath.Join(h.dir, "queue"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(h.dir, "secret"), 0o644); err != nil { // whatever the umask
		t.Fatal(err)
	}
	h.open()
	check := func(want map[string]fs.FileMode) {
		t.Helper()
		for name, mode := range want {
			if info, err := os.Stat(filepath.Join(h.dir, name)); err != nil || info.Mode().Perm() != mode.Perm() || info.Mode()&fs.ModeSticky != mode&fs.ModeSticky {
				t.Errorf("%q: %v %v, want %v", name, info.Mode(), err, mode)
			}
		}
	}
	check(map[string]fs.FileMode{"": 0o751, "secret": 0o640, "queue": 0o750, "submit.sock": 0o666, "maildrop": fs.ModeSticky | 0o733})
	h.stop()
	if err := Shut(h.dir); err != nil {
		t.Fatal(err)
	}
	check(map[string]fs.FileMode{"maildrop": 0o700})
	if err := Shut(t.TempDir()); err != nil {
		t.Errorf("where nobody was let in: %v", err)
	}
}

func TestRule(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct{ user, as, want string }{
		{"me", "me@example.test", ""},
		{"me", "ME+x@example.test", ""},
		{"me", "web@example.test", ""},
		{"me", "any@granted.test", ""},
		{"me", "team@example.test", ""},
		{"me", "root@example.test", "me may not send as <root@example.test>, but as <me@example.test>"},
		{"me", "me@other.test", "may not send"},
		{"other", "web@example.test", "may not send"},
		{"all", "any@any.test", ""},
	} {
		s, err := h.opt.Rule.submission(c.user, &Request{Sender: c.as, Recipients: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Rule(s.Sender)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s as %s: %v", c.user, c.as, err)
		}
	}
	if _, err := h.opt.Rule.submission("no body", &Request{}); err != nil {
		t.Errorf("a name that needs quotes: %v", err)
	}
	if _, err := h.opt.Rule.submission("a@b", &Request{}); err == nil {
		t.Error("a name with an @ is taken for an address")
	}
}
