package tlsrpt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relayd/internal/testnet"
)

var (
	sts     = Policy{Type: STS, Domain: "example.org", Strings: []string{"version: STSv1", "mode: enforce"}, MX: []string{"*.example.org"}}
	dane    = Policy{Type: TLSA, Domain: "example.org", Strings: []string{"3 1 1 00ff"}}
	none    = Policy{Type: NoPolicy, Domain: "other.example"}
	ours    = netip.MustParseAddr("2001:db8::1")
	theirs  = netip.MustParseAddr("2001:db8::2")
	failing = Session{Policy: sts, Failure: Expired, Host: "mx.example.org", From: ours, To: theirs, Reason: "expired in May"}
)

// A shelf is a book in a folder, and its clock.
type shelf struct {
	*Book
	clock *testnet.Clock
	dir   string
	log   *bytes.Buffer
	full  bool // writing fails
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{clock: testnet.NewClock(), dir: filepath.Join(t.TempDir(), "tlsrpt"), log: &bytes.Buffer{}}
	s.reopen(t)
	return s
}

func (s *shelf) reopen(t *testing.T) {
	t.Helper()
	write := func(name string, data []byte) error {
		if s.full {
			return errors.New("no space left")
		}
		return os.WriteFile(name, data, 0o600)
	}
	b, err := Open(Options{
		Organization: "mx.relay.test", Contact: "postmaster@relay.test", Dir: s.dir, Write: write, Now: s.clock.Now,
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Book = b
}

// reports is the JSON of all reports of the day that was so long ago.
func (s *shelf) reports(t *testing.T, ago time.Duration) string {
	t.Helper()
	list, err := s.Reports(s.clock.Now().Add(-ago))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range list {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return strings.Join(all, "\n")
}

const want = `{"organization-name":"mx.relay.test",` +
	`"date-range":{"start-datetime":"2026-06-01T00:00:00Z","end-datetime":"2026-06-01T23:59:59Z"},` +
	`"contact-info":"postmaster@relay.test","report-id":"2026-06-01!example.org!mx.relay.test","policies":[` +
	`{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce"],"policy-domain":"example.org","mx-host":["*.example.org"]},` +
	`"summary":{"total-successful-session-count":1,"total-failure-session-count":2},` +
	`"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"2001:db8::1","receiving-mx-hostname":"mx.example.org",` +
	`"receiving-ip":"2001:db8::2","failed-session-count":2,"failure-reason-code":"expired in May"}]},` +
	`{"policy":{"policy-type":"tlsa","policy-string":["3 1 1 00ff"],"policy-domain":"example.org"},` +
	`"summary":{"total-successful-session-count":2,"total-failure-session-count":0}}]}` + "\n" +
	`{"organization-name":"mx.relay.test","date-range":{"start-datetime":"2026-06-01T00:00:00Z","end-datetime":"2026-06-01T23:59:59Z"},` +
	`"contact-info":"postmaster@relay.test","report-id":"2026-06-01!other.example!mx.relay.test","policies":[` +
	`{"policy":{"policy-type":"no-policy-found","policy-domain":"other.example"},` +
	`"summary":{"total-successful-session-count":0,"total-failure-session-count":1},` +
	`"failure-details":[{"result-type":"starttls-not-supported","failed-session-count":1}]}]}`

func (s *shelf) fill() {
	for _, session := range []Session{
		failing, {Policy: dane}, {Policy: none, Failure: NotSupported}, {Policy: sts}, failing, {Policy: dane},
	} {
		s.Add(session)
	}
}

func TestReport(t *testing.T) {
	s := newShelf(t)
	if got := s.reports(t, 0); got != "" {
		t.Errorf("before any mail: %s", got)
	}
	s.fill()
	if got := s.reports(t, 0); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCountsSurvive(t *testing.T) {
	s := newShelf(t)
	s.fill()
	s.Close()
	s.reopen(t)
	if got := s.reports(t, 0); got != want {
		t.Errorf("after a restart: %s", got)
	}
	s.Add(Session{Policy: dane})
	s.clock.Advance(12 * time.Hour) // midnight
	s.Add(Session{Policy: none})
	if len(s.past) != 1 {
		t.Errorf("%d days are to be written", len(s.past))
	}
	more := strings.Replace(want, `session-count":2,"total-failure-session-count":0`, `session-count":3,"total-failure-session-count":0`, 1)
	for range 2 { // the second is from disk
		if got := s.reports(t, 24*time.Hour); got != more {
			t.Errorf("yesterday: %s", got)
		}
		s.Close()
	}
	if len(s.past) != 0 {
		t.Error("written, and still kept")
	}
	if got := s.reports(t, 0); !strings.Contains(got, `"total-successful-session-count":1`) || strings.Contains(got, "example.org") {
		t.Errorf("today: %s", got)
	}
	if s.log.Len() > 0 {
		t.Error(s.log)
	}
}

func TestRunWritesAndForgets(t *testing.T) {
	s := newShelf(t)
	s.fill()
	s.Close()
	foreign := filepath.Join(s.dir, "2020-01-01.txt")
	for _, name := range []string{foreign, s.path("2030-01-01")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.Advance((keepDays - 1) * 24 * time.Hour)
	synctest.Test(t, func(t *testing.T) {
		var running sync.WaitGroup
		ctx := t.Context()
		running.Go(func() { s.Run(ctx) })
		synctest.Wait()
		if got := s.reports(t, (keepDays-1)*24*time.Hour); got != want {
			t.Errorf("on the last day: %s", got)
		}
		s.clock.Advance(24 * time.Hour)
		s.Add(failing)
		time.Sleep(FlushEvery)
		synctest.Wait()
		if got := s.reports(t, keepDays*24*time.Hour); got != "" {
			t.Errorf("forgotten too late: %s", got)
		}
		if _, err := os.Stat(s.path("2026-06-09")); err != nil {
			t.Error(err)
		}
		t.Cleanup(running.Wait)
	})
	if files, _ := filepath.Glob(s.dir + "/*"); len(files) != 2 || files[0] != foreign {
		t.Errorf("left: %q", files)
	}
}

func TestDiskThatFails(t *testing.T) {
	s := newShelf(t)
	s.fill()
	s.full = true
	s.Close()
	if !strings.Contains(s.log.String(), "no space left") {
		t.Errorf("logged: %s", s.log)
	}
	s.full = false
	s.Close()
	s.reopen(t)
	if got := s.reports(t, 0); got != want {
		t.Errorf("written later: %s", got)
	}
	if err := os.WriteFile(s.path("2026-06-01"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newShelf(t).Reports(s.clock.Now()); err != nil {
		t.Error(err)
	}
	s.reopen(t)
	if got := s.reports(t, 0); got != "" || !strings.Contains(s.log.String(), "begin anew") {
		t.Errorf("from a damaged file: %s", got)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: file + "/x"}); err == nil {
		t.Error("a folder in a file was opened")
	}
	b, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.Add(failing)
	b.Close()
}

func TestBounds(t *testing.T) {
	s := newShelf(t)
	for i := range maxDetails + 10 {
		f := failing
		f.Host = fmt.Sprintf("mx%d.example.org", i)
		f.Policy.Strings = []string{strings.Repeat("x", 10_000)}
		s.Add(f)
	}
	list, err := s.Reports(s.clock.Now())
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	p := list[0].Policies[0]
	if p.Summary.Failures != maxDetails+10 || len(p.Failures) != maxDetails || len(p.Policy.Strings[0]) != maxText {
		t.Errorf("%d failures in %d details, %d bytes", p.Summary.Failures, len(p.Failures), len(p.Policy.Strings[0]))
	}
	for i := range maxDomains + 10 {
		s.Add(Session{Policy: Policy{Type: NoPolicy, Domain: fmt.Sprintf("%d.example", i)}})
	}
	if n := len(s.today.tallies); n != maxDomains {
		t.Errorf("%d domains", n)
	}
	s.Close()
	s.reopen(t)
	if n := len(s.today.tallies); n != maxDomains {
		t.Errorf("%d domains after a restart", n)
	}
}

// TestNothingIsLostOnTheWay: what was counted is read again as it was.
func TestNothingIsLostOnTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDay("2026-06-01")
		for range rapid.IntRange(0, 30).Draw(t, "sessions") {
			d.add(Session{
				Policy: Policy{
					Type: rapid.SampledFrom([]Type{TLSA, STS, NoPolicy}).Draw(t, "type"), Domain: rapid.SampledFrom([]string{"a.test", "b.test"}).Draw(t, "domain"),
					Strings: rapid.SliceOfN(rapid.StringMatching(`[a-z0-9: ]*`), 1, 3).Draw(t, "policy"), MX: []string{"mx"},
				},
				Failure: rapid.SampledFrom([]string{"", Expired, NotTrusted}).Draw(t, "failure"),
				From:    rapid.SampledFrom([]netip.Addr{{}, ours, theirs}).Draw(t, "from"),
			})
		}
		d.dirty = false
		got, err := decode(d.date, d.encode())
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Fatalf("%+v became %+v, %v", d, got, err)
		}
	})
}

// FuzzDecode reads whatever may stand in a file: what is taken keeps the bounds and can be written.
func FuzzDecode(f *testing.F) {
	d := newDay("2026-06-01")
	d.add(failing)
	d.add(Session{Policy: none})
	for _, seed := range []string{"", "{}", `{"day":"2026-06-01"}`, `{"day":"2026-06-01","tallies":[{},{}]}`, string(d.encode())} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := decode("2026-06-01", data)
		if err != nil {
			return
		}
		again, err := decode(d.date, d.encode())
		if err != nil || len(again.tallies) != len(d.tallies) || len(d.tallies) > maxDomains {
			t.Errorf("%d tallies became %v, %v", len(d.tallies), again, err)
		}
	})
}
