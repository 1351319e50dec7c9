package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const day = 24 * time.Hour

// A fakeCA issues at once, by a clock of its own, and writes down when it was asked.
type fakeCA struct {
	t    testing.TB
	life time.Duration
	skew time.Duration // how far our clock is ahead of its

	mu     sync.Mutex
	refuse map[string]error // by name; "" for all
	window *Window
	orders []string // "name" or "name replaces"
	times  []time.Time
	asked  int
	serial int64
	hangs  bool
}

func (c *fakeCA) Obtain(ctx context.Context, name string, replaced *x509.Certificate) (*Pair, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	order := name
	if replaced != nil {
		order += " replaces"
	}
	c.orders, c.times = append(c.orders, order), append(c.times, time.Now())
	if c.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, who := range []string{"", name} {
		if err := c.refuse[who]; err != nil {
			return nil, err
		}
	}
	c.serial++
	return issue(c.t, name, c.serial, time.Now().Add(-c.skew), c.life), nil
}

func (c *fakeCA) Window(context.Context, *x509.Certificate) (Window, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.window == nil {
		return Window{}, ErrNoWindow
	}
	return *c.window, nil
}

// set changes the CA while a keeper runs.
func (c *fakeCA) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *fakeCA) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.orders)
}

func issue(t testing.TB, name string, number int64, from time.Time, life time.Duration) *Pair {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
		return &Pair{}
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), DNSNames: []string{name}, NotBefore: from, NotAfter: from.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Error(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Error(err)
	}
	return &Pair{
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// A bench has a keeper that runs in a bubble of synctest, where the clock is the test's.
type bench struct {
	*testing.T
	ca     *fakeCA
	dir    string
	names  []string
	log    bytes.Buffer // to be read when the keeper has stopped
	keeper *Keeper
	stop   func()

	mu      sync.Mutex
	changed int
	mails   []string
}

// told is how often a certificate has changed, and what the postmaster was written.
func (b *bench) told() (changed int, mails []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed, slices.Clone(b.mails)
}

const host = "mx.example.org"

func newBench(t *testing.T, dir string) *bench {
	b := &bench{T: t, dir: dir, names: []string{host}, ca: &fakeCA{t: t, life: 90 * day, refuse: map[string]error{}}}
	return b
}

func (b *bench) start() {
	b.keeper = New(Options{
		Dir: b.dir, Names: b.names, Directory: "https://ca.example/dir", CA: b.ca, Write: func(file string, data []byte) error { return os.WriteFile(file, data, 0o600) },
		Changed: func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.changed++
		},
		Notify: func(subject, text string) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.mails = append(b.mails, subject+"\n"+text)
			return nil
		},
		Log: slog.New(slog.NewTextHandler(&b.log, nil)), Chance: func() float64 { return 0.5 },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.keeper.Run(ctx) })
	b.stop = func() { cancel(); running.Wait() }
	synctest.Wait()
}

// pass lets time pass.
func (b *bench) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) want(orders ...string) {
	b.Helper()
	b.ca.mu.Lock()
	defer b.ca.mu.Unlock()
	if got := strings.Join(b.ca.orders, ", "); got != strings.Join(orders, ", ") {
		b.Fatalf("orders: %s; want %s", got, strings.Join(orders, ", "))
	}
}

func (b *bench) status() Status {
	b.Helper()
	return b.keeper.Status()[0]
}

// in plays a test in a bubble. The folder is made outside, where t.TempDir may wait.
func in(t *testing.T, play func(b *bench)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir)
		b.stop = func() {}
		defer func() { b.stop() }()
		play(b)
	})
}

func TestOrdersAtOnceAndRenewsAtTwoThirds(t *testing.T) {
	in(t, func(b *bench) {
		begin := time.Now()
		b.start()
		b.want(host)
		// Half of the thirtieth that chance may take off.
		if s := b.status(); s.Urgent || s.Error != "" || !s.Next.Equal(begin.Add(60*day-36*time.Hour)) || !s.Expires.Equal(begin.Add(90*day)) {
			b.Errorf("%+v", s)
		}
		b.pass(58 * day)
		b.want(host)
		b.pass(day)
		b.want(host, host+" replaces")
		if changed, mails := b.told(); changed != 2 || len(mails) > 0 {
			b.Errorf("%d changes, mails %q", changed, mails)
		}
	})
}

func TestARestartKeepsTheTimeThatWasChosen(t *testing.T) {
	in(t, func(b *bench) {
		b.ca.window = &Window{Start: time.Now().Add(40 * day), End: time.Now().Add(42 * day)}
		b.start()
		b.pass(time.Minute)
		next := b.status().Next
		if !next.Equal(b.ca.window.Start.Add(day)) {
			b.Errorf("renewal at %s", next)
		}
		for range 3 {
			b.stop()
			b.start()
			b.pass(day)
		}
		b.want(host)
		if got := b.status().Next; !got.Equal(next) {
			b.Errorf("renewal at %s, before the restarts at %s", got, next)
		}
		b.ca.set(func() { b.ca.window = &Window{Start: time.Now().Add(-2 * day), End: time.Now().Add(-day)} })
		b.pass(7 * time.Hour)
		b.want(host, host+" replaces")
	})
}

func TestAWindowThatIsAlwaysOverMakesNoLoop(t *testing.T) {
	in(t, func(b *bench) {
		b.ca.window = &Window{Start: time.Now().Add(-2 * day), End: time.Now().Add(-day)}
		b.start()
		b.pass(10*day - time.Hour)
		if n := b.ca.count(); n != 10 {
			b.Errorf("%d orders in ten days", n)
		}
	})
}

func TestAnEmptyWindowIsNone(t *testing.T) {
	in(t, func(b *bench) {
		b.ca.window = &Window{Start: time.Now().Add(time.Hour), End: time.Now().Add(time.Hour)}
		b.start()
		b.pass(50 * day)
		b.want(host)
	})
}

func TestWithoutTheCATriesAreFewerAndFewer(t *testing.T) {
	in(t, func(b *bench) {
		b.ca.refuse[""] = errors.New("connection refused")
		begin := time.Now()
		b.start()
		if s := b.status(); s.Error != "connection refused" || !s.Since.Equal(begin) || !s.Urgent || !strings.Contains(s.String(), "there is no certificate by ACME for mx.example.org; ordering a new one has failed since ") {
			b.Errorf("%+v", s)
		}
		b.pass(3 * day)
		var gaps []time.Duration
		b.ca.set(func() {
			for i, at := range b.ca.times[1:] {
				gaps = append(gaps, at.Sub(b.ca.times[i]).Round(time.Minute))
			}
		})
		if got := fmt.Sprint(gaps); got != "[5m0s 11m0s 21m0s 42m0s 1h24m0s 2h48m0s 5h36m0s 11h12m0s 22h24m0s 25h12m0s]" {
			b.Errorf("pauses %s", got)
		}
		// A restart is no reason to ask again, a request is.
		n := b.ca.count()
		b.stop()
		b.start()
		b.pass(time.Hour)
		if b.ca.count() != n {
			b.Error("tried again because of a restart")
		}
		b.ca.set(func() { delete(b.ca.refuse, "") })
		b.keeper.Retry()
		b.pass(2 * time.Second)
		if s := b.status(); s.Error != "" || s.Expires.IsZero() || !s.Since.IsZero() {
			b.Errorf("%+v", s)
		}
	})
}

func TestRetryIsNoWayToAskManyTimes(t *testing.T) {
	in(t, func(b *bench) {
		b.ca.refuse[""] = errors.New("no")
		b.start()
		for range 90 {
			b.keeper.Retry()
			b.pass(time.Second)
		}
		b.want(host, host)
		b.ca.set(func() { b.ca.refuse[""] = &WaitError{errors.New("too many"), 3 * day} })
		b.pass(time.Hour)
		n := b.ca.count()
		b.keeper.Retry()
		b.pass(2 * day)
		if b.ca.count() != n || !b.status().Next.After(time.Now()) {
			b.Errorf("%d orders after the CA asked for a pause", b.ca.count()-n)
		}
		b.ca.set(func() { delete(b.ca.refuse, "") })
		b.pass(2 * day)
		if b.status().Error != "" {
			b.Errorf("%+v", b.status())
		}
	})
}

func TestACertificateThatRunsOutIsToldOfOnce(t *testing.T) {
	in(t, func(b *bench) {
		b.start()
		b.ca.set(func() { b.ca.refuse[""] = errors.New("no such host") })
		b.pass(75 * day)
		if _, mails := b.told(); b.status().Urgent || b.status().Error == "" || len(mails) > 0 {
			b.Errorf("too early: %+v, %q", b.status(), mails)
		}
		b.pass(2 * day)
		_, mails := b.told()
		if text := strings.Join(mails, "|"); !b.status().Urgent || len(mails) != 1 || !strings.HasPrefix(text, "The certificate for mx.example.org runs out\n") || !strings.Contains(text, "no such host") {
			b.Errorf("%+v, %q", b.status(), mails)
		}
		b.stop()
		b.start()
		b.pass(20 * day)
		if _, mails := b.told(); len(mails) != 1 {
			b.Errorf("%d mails", len(mails))
		}
		b.ca.set(func() { delete(b.ca.refuse, "") })
		b.pass(2 * day)
		if s := b.status(); s.Urgent {
			b.Errorf("%+v", s)
		}
	})
}

// TestWrongClock: the certificate is good, our clock is not. It is put into place, said, and no
// other is ordered but daily; once the clock is right all is well.
func TestWrongClock(t *testing.T) {
	for _, skew := range []time.Duration{400 * day, -day} {
		in(t, func(b *bench) {
			b.ca.skew = skew
			b.start()
			if s := b.status(); !strings.Contains(s.Error, "THE CLOCK OF THIS MACHINE IS WRONG") || !s.Urgent || s.Expires.IsZero() {
				b.Errorf("%v: %+v", skew, s)
			}
			if changed, _ := b.told(); changed != 1 {
				b.Errorf("%d changes", changed)
			}
			b.keeper.Retry()
			b.pass(20 * time.Hour)
			b.want(host)
			if skew < 0 { // now it is valid
				b.pass(5 * time.Hour)
				if s := b.status(); s.Error != "" || s.Urgent {
					b.Errorf("%v: %+v", skew, s)
				}
				b.want(host)
			}
		})
	}
}

// TestTimesOfAWrongClock: what a clock that was ahead has planned is not waited for.
func TestTimesOfAWrongClock(t *testing.T) {
	in(t, func(b *bench) {
		if err := os.MkdirAll(b.dir, 0o700); err != nil {
			b.Fatal(err)
		}
		state := fmt.Sprintf(`{%q:{"failures":3,"error":"x","try_at":%q}}`, host, time.Now().Add(900*day).Format(time.RFC3339))
		if err := os.WriteFile(filepath.Join(b.dir, stateFile), []byte(state), 0o600); err != nil {
			b.Fatal(err)
		}
		b.start()
		b.want(host)
	})
}

func TestOneNameThatFailsKeepsNoOtherBack(t *testing.T) {
	in(t, func(b *bench) {
		b.names = []string{host, "*.example.org"}
		b.ca.refuse[host] = errors.New("wrong address")
		b.start()
		b.want(host, "*.example.org")
		list := b.keeper.Status()
		if list[0].Error == "" || list[1].Error != "" || list[1].Name != "*.example.org" {
			b.Errorf("%+v", list)
		}
		if _, err := os.Stat(filepath.Join(b.dir, "_.example.org", keyFile)); err != nil {
			b.Error(err)
		}
	})
}

func TestAnotherCAReplacesTheCertificate(t *testing.T) {
	in(t, func(b *bench) {
		b.start()
		b.stop()
		text, err := os.ReadFile(filepath.Join(b.dir, stateFile))
		if err != nil {
			b.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("https://ca.example/dir"), []byte("https://staging.example/dir"))
		if err := os.WriteFile(filepath.Join(b.dir, stateFile), text, 0o600); err != nil {
			b.Fatal(err)
		}
		b.start()
		b.want(host) // it was asked just now
		b.pass(2 * time.Minute)
		b.want(host, host) // a CA does not know what another has issued
	})
}

func TestDamagedStateCostsOneOrderAtMost(t *testing.T) {
	in(t, func(b *bench) {
		b.start()
		b.stop()
		if err := os.WriteFile(filepath.Join(b.dir, stateFile), []byte("{"), 0o600); err != nil {
			b.Fatal(err)
		}
		b.start()
		b.pass(50 * day)
		b.want(host, host)
		b.stop()
		if !strings.Contains(b.log.String(), "is forgotten") {
			b.Errorf("the log: %s", &b.log)
		}
	})
}

func TestWhatTheCAIssuesIsLookedAt(t *testing.T) {
	in(t, func(b *bench) {
		good := issue(t, "other.example.org", 1, time.Now(), day)
		b.keeper = New(Options{Dir: b.dir, Names: b.names, CA: badCA{good}, Write: func(string, []byte) error { return nil }, Log: slog.New(slog.DiscardHandler)})
		b.keeper.look(b.Context(), host)
		if s := b.status(); !strings.Contains(s.Error, "is valid for other.example.org") {
			b.Errorf("%+v", s)
		}
	})
}

type badCA struct{ pair *Pair }

func (c badCA) Obtain(context.Context, string, *x509.Certificate) (*Pair, error) { return c.pair, nil }
func (c badCA) Window(context.Context, *x509.Certificate) (Window, error) {
	return Window{}, ErrNoWindow
}

// TestShutdownDoesNotWaitForTheCA: it is no failure, and leaves the plan as it was.
func TestShutdownDoesNotWaitForTheCA(t *testing.T) {
	in(t, func(b *bench) {
		b.ca.hangs = true
		b.start()
		b.stop()
		if s := b.status(); s.Error != "" {
			b.Errorf("%+v", s)
		}
	})
}

// TestACrashInTheMiddle: the order that was begun is on record, so that a process that dies in it
// again and again does not order again and again.
func TestACrashInTheMiddle(t *testing.T) {
	in(t, func(b *bench) {
		for range 5 {
			b.ca.hangs = true
			b.start()
			b.stop()
		}
		b.want(host)
		b.ca.hangs = false
		b.start()
		b.pass(2 * time.Minute)
		b.want(host, host)
	})
}

func TestCertificatesForOldNamesGoWhenTheyExpire(t *testing.T) {
	in(t, func(b *bench) {
		b.names = []string{host, "*.old.example"}
		b.start()
		b.stop()
		b.names = b.names[:1]
		old := filepath.Join(b.dir, "_.old.example")
		b.start()
		if _, err := os.Stat(old); err != nil {
			b.Error(err)
		}
		b.stop()
		b.pass(100 * day)
		b.start()
		if _, err := os.Lstat(old); !os.IsNotExist(err) {
			b.Error("it is still there")
		}
		if list, err := filepath.Glob(filepath.Join(b.dir, "._*")); err != nil || len(list) > 0 {
			b.Errorf("left behind: %q, %v", list, err)
		}
	})
}

func TestInstallKeepsThePairWholeAndLittleElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for n := range int64(4) {
		if err := install(dir, "x", issue(t, "x.example", n+1, time.Now(), day)); err != nil {
			t.Fatal(err)
		}
		leaf, err := readLeaf(dir, "x")
		if err != nil || leaf.SerialNumber.Int64() != n+1 {
			t.Fatalf("%v, %v", leaf, err)
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 3 { // the link, its folder, the folder before
		t.Errorf("%v, %v", list, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "x", keyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "y"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := install(dir, "y", issue(t, "y.example", 1, time.Now(), day)); err == nil || !strings.Contains(err.Error(), "take it away") {
		t.Errorf("somebody's own folder: %v", err)
	}
}

// TestARestoredCertificateIsRenewed: a backup holds what links lead to, so that a folder stands where the
// link was. Each order that ended there would cost one of the few that a CA allows.
func TestARestoredCertificateIsRenewed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for n := range int64(3) {
		if err := install(dir, "x", issue(t, "x.example", n+1, time.Now(), day)); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "x")
		hidden, err := filepath.EvalSymlinks(link)
		if err := errors.Join(err, os.Remove(link), os.Rename(hidden, link)); err != nil {
			t.Fatal(err)
		}
		if leaf, err := readLeaf(dir, "x"); err != nil || leaf.SerialNumber.Int64() != n+1 {
			t.Fatalf("%v, %v", leaf, err)
		}
	}
	if err := install(dir, "x", issue(t, "x.example", 4, time.Now(), day)); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 3 { // the link, its folder, the folder before
		t.Errorf("%v, %v", list, err)
	}
}

// TestABackupTakesWhatIsKnown: it leaves out what begins with a dot. Without the plan of renewals every
// restored server would order all its certificates anew at once, and without the account as somebody else.
func TestABackupTakesWhatIsKnown(t *testing.T) {
	for _, name := range []string{stateFile, accountFile} {
		if strings.HasPrefix(name, ".") {
			t.Errorf("%s is left out of backups", name)
		}
	}
}
