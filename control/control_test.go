package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/address"
	"relayd/problem"
	"relayd/queue"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// fake is a daemon with a queue that only remembers.
type fake struct {
	mu           sync.Mutex
	envelopes    []*queue.Envelope
	done         []string
	problems     problem.List
	full         error // what changes fail with
	groups       []queue.GroupStatus
	body         func() io.Reader // of every message; nil: aBody
	check        func(context.Context, func(done, total int64)) (*queue.Report, error)
	destinations []Destination
	bans         []Ban
	read         int // envelopes that List has given
}

const aBody = "Subject: x\r\n\r\nbody\r\n"

func (f *fake) Status() Status { return Status{Version: "1", Started: noon} }

func (f *fake) Destinations() []Destination { return f.destinations }

func (f *fake) Bans(sel BanSelection) (list []Ban) {
	for _, b := range f.bans {
		source, err := netip.ParsePrefix(b.Name)
		account := ""
		if err != nil {
			account = b.Name
		}
		if sel.Match(source, account) {
			list = append(list, b)
		}
	}
	return list
}

func (f *fake) Unban(sel BanSelection) []Ban {
	lifted := f.Bans(sel)
	f.bans = slices.DeleteFunc(f.bans, func(b Ban) bool { return slices.Contains(lifted, b) })
	return lifted
}

func (f *fake) Reload() problem.List { return f.problems }

func (f *fake) Search(_ string, yield func(*queue.Envelope) bool) {
	for _, e := range f.envelopes {
		f.read++
		if !yield(e) {
			return
		}
	}
}

func (f *fake) Groups() []queue.GroupStatus { return f.groups }

func (f *fake) Send(context.Context, Sending, io.Reader) (*Sent, error) {
	return nil, errors.New("nothing is taken here")
}

func (f *fake) CheckQueue(ctx context.Context, progress func(done, total int64)) (*queue.Report, error) {
	return f.check(ctx, progress)
}

func (f *fake) Get(id string) (*queue.Envelope, error) {
	for _, e := range f.envelopes {
		if e.ID == id {
			return e, nil
		}
	}
	return nil, queue.ErrNotFound
}

func (f *fake) Body(string) (io.ReadCloser, error) {
	if f.body != nil {
		return io.NopCloser(f.body()), nil
	}
	return io.NopCloser(strings.NewReader(aBody)), nil
}

func (f *fake) change(verb, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.Get(id); err != nil {
		return err
	}
	if f.full != nil {
		return f.full
	}
	f.done = append(f.done, verb+" "+id)
	return nil
}

func (f *fake) Retry(id string) error   { return f.change("retry", id) }
func (f *fake) Hold(id string) error    { return f.change("hold", id) }
func (f *fake) Release(id string) error { return f.change("release", id) }
func (f *fake) Remove(id string) error  { return f.change("remove", id) }

// socketPath is short enough for a socket, which that of t.TempDir need not be.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "control.sock")
}

// serve runs a server for f until the test ends.
func serve(t *testing.T, f *fake) (c *Client, path string) {
	t.Helper()
	path = socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(f, f, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return NewClient(path), path
}

func at(s string) address.Address {
	a, err := address.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

func recipient(to string, s queue.Status) queue.Recipient {
	return queue.Recipient{Address: at(to), Status: s}
}

// threeMessages are one that waits in part, one that is held, and one more.
func threeMessages() []*queue.Envelope {
	forwarded := recipient("me@gmail.com", queue.Status{State: queue.Waiting, Next: noon})
	forwarded.Alias = at("info@bücher.example")
	return []*queue.Envelope{
		{ID: "AAAAAAAA", Received: noon, Sender: at("s@x.example"), User: at("u@x.example"), Size: int64(len(aBody)), Recipients: []queue.Recipient{
			recipient("a@one.example", queue.Status{State: queue.Delivered, Attempts: 1, LastReply: "250 2.0.0 Ok", LastHost: "mx", LastTry: noon}),
			recipient("b@two.example", queue.Status{State: queue.Waiting, Next: noon.Add(2 * time.Minute)}),
			recipient("c@two.example", queue.Status{State: queue.Waiting, Attempts: 2, Next: noon.Add(time.Minute)}),
		}},
		{ID: "BBBBBBBB", Received: noon.Add(time.Nanosecond), Recipients: []queue.Recipient{
			recipient("postmaster@x.example", queue.Status{State: queue.Held}),
		}},
		{ID: "CCCCCCCC", Received: noon, Sender: at("s@x.example"), Recipients: []queue.Recipient{forwarded}},
	}
}

func get(t *testing.T, c *Client, method, path string) string {
	t.Helper()
	body, err := c.open(context.Background(), method, path, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	var flat bytes.Buffer
	if err := json.Compact(&flat, text); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return flat.String()
}

func TestShapeOfTheQueue(t *testing.T) {
	c, _ := serve(t, &fake{envelopes: threeMessages()[:2]})
	first := `{"id":"AAAAAAAA","sender":"s@x.example","size":20,"received":"2026-06-01T12:00:00Z","state":"waiting","recipients":[` +
		`{"address":"a@one.example","state":"delivered","attempts":1,"last_reply":"250 2.0.0 Ok","last_host":"mx","last_try":"2026-06-01T12:00:00Z"},` +
		`{"address":"b@two.example","state":"waiting","attempts":0,"last_reply":"","next":"2026-06-01T12:02:00Z"},` +
		`{"address":"c@two.example","state":"waiting","attempts":2,"last_reply":"","next":"2026-06-01T12:01:00Z"}],` +
		`"next":"2026-06-01T12:01:00Z"`
	second := `{"id":"BBBBBBBB","sender":"","size":0,"received":"2026-06-01T12:00:00.000000001Z","state":"held","recipients":[` +
		`{"address":"postmaster@x.example","state":"held","attempts":0,"last_reply":"","held_by_admin":true}],"held_by_admin":true,"next":null}`
	if got, want := get(t, c, "POST", "/queue/list"), "["+first+"},"+second+"]"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := get(t, c, "GET", "/queue/messages/AAAAAAAA"), first+`,"user":"u@x.example","header":"Subject: x\r\n"}`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := get(t, c, "POST", "/queue/count"); got != "[2]" {
		t.Errorf("the count is %s", got)
	}
	c, _ = serve(t, &fake{})
	if got := get(t, c, "POST", "/queue/list"); got != "[]" {
		t.Errorf("an empty list is %s", got)
	}
	if got := get(t, c, "GET", "/queue/groups"); got != "[]" {
		t.Errorf("no groups are %s", got)
	}
}

func TestShapeOfTheStatus(t *testing.T) {
	c, _ := serve(t, &fake{})
	want := `{"version":"1","hostname":"","started":"2026-06-01T12:00:00Z","listeners":[],"connections":0,"filters":{"uses":[],"dnsbl":0,"rspamd":0,"milter":0,"suspect":0},` +
		`"queue":{"messages":0,"held":0,"bytes":0,"attempts":{"delivered":0,"deferred":0,"failed":0,"running":0},` +
		`"log":{"segments":0,"syncs":0,"commits":0,"sync_seconds":0}},"health":{"damaged":[]},"domains":[],"certificates":[],"acme":[],"problems":[],"warnings":[]}`
	if got := get(t, c, "GET", "/status"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestClientReadsWhatTheServerWrites(t *testing.T) {
	f := &fake{envelopes: threeMessages(), problems: problem.List{problem.At("f", 1, "x")}}
	c, _ := serve(t, f)
	ctx := context.Background()
	if s, err := c.Status(ctx); err != nil || s.Version != "1" || !s.Started.Equal(noon) {
		t.Errorf("%+v, %v", s, err)
	}
	if p, err := c.Reload(ctx); err != nil || !slices.Equal(p, f.problems) {
		t.Errorf("%v, %v", p, err)
	}
	var list []Message
	if err := c.List(ctx, Filter{}, 0, func(m Message) bool { list = append(list, m); return true }); err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	if m := list[0]; !m.Next.Equal(noon.Add(time.Minute)) || m.State != "waiting" || len(m.Recipients) != 3 {
		t.Errorf("%+v", m)
	}
	if m := list[1]; !m.Next.IsZero() || m.State != "held" {
		t.Errorf("%+v", m)
	}
	if m := list[2]; m.Recipients[0].Alias != "info@xn--bcher-kva.example" {
		t.Errorf("%+v", m)
	}
	d, err := c.Show(ctx, "AAAAAAAA")
	if err != nil || d.ID != "AAAAAAAA" || d.Header != "Subject: x\r\n" || d.User != "u@x.example" || !d.Next.Equal(list[0].Next) {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestListIsAStream(t *testing.T) {
	f := &fake{}
	for range 20_000 {
		f.envelopes = append(f.envelopes, threeMessages()[0])
	}
	c, _ := serve(t, f)
	n := 0
	if err := c.List(context.Background(), Filter{Domain: "two.example"}, 0, func(Message) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestErrorTexts(t *testing.T) {
	c, _ := serve(t, &fake{envelopes: threeMessages()})
	ctx := context.Background()
	for id, want := range map[string]string{
		"DDDDDDDD": "no such message in the queue", "..": "", "../status": "is not a queue ID", "a?b": "is not a queue ID", "": "relayd does not know",
		strings.Repeat("A", 33): "is not a queue ID",
	} {
		if _, err := c.Show(ctx, id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", id, err, want)
		}
	}
	if _, err := c.Change(ctx, "explode", Selection{All: true}); err == nil || !strings.Contains(err.Error(), "relayd does not know POST /queue/explode") {
		t.Error(err)
	}
	for path, body := range map[string]string{
		"/queue/list": `{"al":true}`, "/queue/count": `{"domain":"a b"}`, "/queue/hold": "", "/queue/remove": `{"all":true,"elder":"1h"}`,
		"/queue/release": `{"all":true} {"all":true}`, "/queue/retry": "[]", "/queue/check": `{"repair":true}`,
	} {
		if _, err := c.open(ctx, "POST", path, json.RawMessage(body)); err == nil {
			t.Errorf("%s takes %q", path, body)
		}
	}
}

func TestClientWithoutADaemon(t *testing.T) {
	path := socketPath(t)
	ask := func() error { _, err := NewClient(path).Status(context.Background()); return err }
	if err := ask(); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("no socket: %v", err)
	}
	leaveStale(t, path)
	if err := ask(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a socket of a daemon that is gone: %v", err)
	}
}

// leaveStale leaves a socket as a crash does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestAnswersThatBreakOff(t *testing.T) {
	for _, text := range []string{"", "[", `[{"id":"AAAAAAAA"}`, `[{"id":"AAAAAAAA"},`, `[{"id":"AAAA`} {
		path := socketPath(t)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		srv := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, text)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})}
		go srv.Serve(l)
		if err := NewClient(path).List(context.Background(), Filter{}, 0, func(Message) bool { return true }); err == nil || !strings.Contains(err.Error(), "broke off") {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := NewClient(path).Status(context.Background()); err == nil {
			t.Errorf("%q is a status", text)
		}
		srv.Close()
	}
}
