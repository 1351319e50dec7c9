package users

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayd/address"
)

func addr(local string) address.Address {
	return address.Address{Local: local, Domain: "example.org"}
}

// counted makes a Verifier that counts its comparisons, and a clock to move.
func counted(opt VerifierOptions) (*Verifier, *atomic.Int64, *time.Time) {
	now := time.Unix(1_700_000_000, 0)
	opt.Cost = MinCost
	opt.Now = func() time.Time { return now }
	v := NewVerifier(opt)
	var count atomic.Int64
	inner := v.compare
	v.compare = func(hash, password []byte) error {
		count.Add(1)
		return inner(hash, password)
	}
	return v, &count, &now
}

func verify(t *testing.T, v *Verifier, table *Table, login string) bool {
	t.Helper()
	local, password, _ := strings.Cut(login, ":")
	ok, err := v.Verify(t.Context(), Login{Table: table, User: addr(local), Password: password})
	if err != nil {
		t.Fatalf("Verify(%q): %v", login, err)
	}
	return ok
}

func TestEveryLoginThatIsNotRememberedCostsOneComparison(t *testing.T) {
	long := strings.Repeat("x", MaxPassword)
	table := parse(t, "alice:"+hash4+"\nbob:!"+hash4+"\ncarol:"+mustHash(long)+"\n")
	tests := []struct {
		name  string
		table *Table
		login string
		want  bool
	}{
		{"right", table, "alice:secret", true},
		{"right, another case of the name", table, "ALICE:secret", true},
		{"wrong", table, "alice:Secret", false},
		{"empty", table, "alice:", false},
		{"disabled", table, "bob:secret", false},
		{"unknown", table, "mallory:secret", false},
		{"unknown domain", nil, "alice:secret", false},
		{"no users", parse(t, ""), "alice:secret", false},
		{"as long as can be", table, "carol:" + long, true},
		{"right as far as bcrypt looks", table, "carol:" + long + "x", false},
		{"a zero byte", table, "alice:secret\x00", false},
		{"a megabyte", table, "alice:" + strings.Repeat("x", 1<<20), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, count, _ := counted(VerifierOptions{})
			for i := range 2 {
				if got := verify(t, v, tt.table, tt.login); got != tt.want {
					t.Errorf("login %d: %v, want %v", i+1, got, tt.want)
				}
			}
			want := int64(2)
			if tt.want {
				want = 1
			}
			if got := count.Load(); got != want {
				t.Errorf("%d comparisons for two logins, want %d", got, want)
			}
		})
	}
}

func TestUnknownUserIsComparedWithARealHash(t *testing.T) {
	table := parse(t, "a:"+hash4+"\nb:"+mustHash("x")+"\nc:"+mustHash("y")+"\n")
	v, _, _ := counted(VerifierOptions{})
	known := make(map[string]bool)
	for _, u := range table.All() {
		known[u.Hash] = true
	}
	used := make(map[string]bool)
	var last string
	v.compare = func(hash, _ []byte) error { last = string(hash); return nil } // every password fits
	for i := range 100 {
		login := "nobody" + strings.Repeat("x", i%50) + ":secret"
		if verify(t, v, table, login) {
			t.Fatalf("%s got in", login)
		}
		if !known[last] {
			t.Fatalf("compared with %q, which is nobody's", last)
		}
		first := last
		verify(t, v, table, login)
		if last != first {
			t.Fatalf("%s was compared with two hashes", login)
		}
		used[last] = true
	}
	if len(used) != 3 {
		t.Errorf("%d of 3 hashes were used", len(used))
	}
}

func TestARememberedLoginEndsAfterItsTime(t *testing.T) {
	v, count, now := counted(VerifierOptions{Remember: 10 * time.Minute})
	table := parse(t, "alice:"+hash4)
	verify(t, v, table, "alice:secret")
	*now = now.Add(10*time.Minute - 1)
	verify(t, v, table, "alice:secret")
	if count.Load() != 1 {
		t.Error("forgotten too early")
	}
	*now = now.Add(1)
	verify(t, v, table, "alice:secret")
	if count.Load() != 2 {
		t.Error("remembered for longer because it was used")
	}
}

func TestAChangedOrDisabledUserIsOutAtOnce(t *testing.T) {
	v, _, _ := counted(VerifierOptions{})
	if !verify(t, v, parse(t, "alice:"+hash4), "alice:secret") {
		t.Fatal("not in")
	}
	for name, text := range map[string]string{
		"changed":  "alice:" + mustHash("other"),
		"disabled": "alice:!" + hash4,
		"removed":  "bob:" + hash4,
	} {
		if verify(t, v, parse(t, text), "alice:secret") {
			t.Errorf("%s, and still in", name)
		}
	}
	if verify(t, v, nil, "alice:secret") {
		t.Error("the domain is gone, and still in")
	}
}

func TestALoginIsRememberedForItsAddressOnly(t *testing.T) {
	v, count, _ := counted(VerifierOptions{})
	table := parse(t, "alice:"+hash4+"\nbob:"+hash4)
	verify(t, v, table, "alice:secret")
	verify(t, v, table, "bob:secret")
	if _, err := v.Verify(t.Context(), Login{Table: table, User: address.Address{Local: "alice", Domain: "example.net"}, Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	if count.Load() != 3 {
		t.Errorf("%d comparisons, want 3", count.Load())
	}
}

func TestTheOldestLoginIsForgottenFirst(t *testing.T) {
	v, count, _ := counted(VerifierOptions{MaxRemembered: 2})
	table := parse(t, "a:"+hash4+"\nb:"+hash4+"\nc:"+hash4)
	for _, login := range []string{"a:secret", "b:secret", "c:secret", "b:secret", "c:secret"} {
		verify(t, v, table, login)
	}
	if count.Load() != 3 {
		t.Errorf("%d comparisons, want 3", count.Load())
	}
	verify(t, v, table, "a:secret")
	if count.Load() != 4 || len(v.expiry) != 2 || len(v.inOrder) != 2 {
		t.Errorf("%d comparisons, %d remembered", count.Load(), len(v.expiry))
	}
}

// held makes a Verifier whose comparisons wait until the channel lets them go.
func held(opt VerifierOptions) (*Verifier, chan struct{}) {
	v, _, _ := counted(opt)
	gate := make(chan struct{})
	inner := v.compare
	v.compare = func(hash, password []byte) error {
		<-gate
		return inner(hash, password)
	}
	return v, gate
}

func TestTooManyWaitingLoginsAreTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, gate := held(VerifierOptions{MaxWaiting: 2, AtOnce: 1})
		table := parse(t, "alice:"+hash4)
		var in sync.WaitGroup
		for range 3 { // one compares, two wait
			in.Go(func() { verify(t, v, table, "alice:wrong") })
		}
		synctest.Wait()
		if _, err := v.Verify(t.Context(), Login{Table: table, User: addr("alice"), Password: "wrong"}); !errors.Is(err, ErrBusy) {
			t.Errorf("the fourth got %v", err)
		}
		close(gate)
		in.Wait()
		if verify(t, v, table, "alice:wrong") {
			t.Error("a wrong password is right")
		}
	})
}

func TestAWaitingLoginLeavesWhenItsClientDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, gate := held(VerifierOptions{MaxWaiting: 1, AtOnce: 1})
		table := parse(t, "alice:"+hash4)
		var in sync.WaitGroup
		in.Go(func() { verify(t, v, table, "alice:wrong") })
		synctest.Wait()
		for range 3 { // a place that was left is free again
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := v.Verify(ctx, Login{Table: table, User: addr("alice"), Password: "wrong"})
			if !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			cancel()
		}
		close(gate)
		in.Wait()
	})
}

func TestAClientThatHasLeftCostsNothing(t *testing.T) {
	v, count, _ := counted(VerifierOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(ctx, Login{User: addr("a"), Password: "x"}); !errors.Is(err, ErrBusy) || count.Load() != 0 {
		t.Errorf("%v, %d comparisons", err, count.Load())
	}
}

func TestParallelLoginsOfOneAppCostOneComparison(t *testing.T) {
	v, count, _ := counted(VerifierOptions{AtOnce: 1, MaxOfSource: 100})
	table := parse(t, "alice:"+hash4)
	var running, most atomic.Int64
	inner := v.compare
	v.compare = func(hash, password []byte) error {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		return inner(hash, password)
	}
	var in sync.WaitGroup
	for range 50 {
		in.Go(func() {
			if !verify(t, v, table, "alice:secret") {
				t.Error("not in")
			}
		})
	}
	for range 20 {
		in.Go(func() {
			if verify(t, v, table, "bob:secret") {
				t.Error("in")
			}
		})
	}
	in.Wait()
	if count.Load() != 21 || most.Load() != 1 {
		t.Errorf("%d comparisons, want 21; %d at a time, want 1", count.Load(), most.Load())
	}
}

// Whose turn it was does not wait for the rest, only who is next.
func TestLaneOfStrangersRestsForAsLongAsATurnTook(t *testing.T) {
	for _, tt := range []struct {
		known bool
		want  time.Duration
	}{{false, 500 * time.Millisecond}, {true, 300 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			v := NewVerifier(VerifierOptions{Cost: MinCost, AtOnce: 1})
			v.compare = func(hash, password []byte) error {
				time.Sleep(100 * time.Millisecond)
				return errors.New("wrong")
			}
			began := time.Now()
			var in sync.WaitGroup
			for range 3 {
				in.Go(func() { v.Verify(t.Context(), Login{User: addr("a"), Password: "x", Known: tt.known}) })
			}
			in.Wait()
			if took := time.Since(began); took != tt.want {
				t.Errorf("known %v: three logins in turn took %v, want %v", tt.known, took, tt.want)
			}
		})
	}
}

func TestHashesOfOtherProgramsVerify(t *testing.T) {
	file, err := os.Open("testdata/htpasswd")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	table, err := Parse("testdata/htpasswd", file)
	if err != nil {
		t.Fatal(err)
	}
	v, _, _ := counted(VerifierOptions{})
	for _, login := range []string{"alice:correct horse battery staple", "bob:schön & <lang>"} {
		if !verify(t, v, table, login) {
			t.Errorf("%q is not in", login)
		}
		if verify(t, v, table, login+"x") {
			t.Errorf("%qx is in", login)
		}
	}
}

func TestWhatCanBeAPassword(t *testing.T) {
	for _, tt := range []struct {
		password string
		want     error
	}{
		{"x", nil},
		{strings.Repeat("x", 72), nil},
		{strings.Repeat("x", 73), ErrTooLong},
		{"", ErrEmpty},
		{"a\x00b", ErrNUL},
	} {
		if _, err := Hash(tt.password, MinCost); !errors.Is(err, tt.want) {
			t.Errorf("Hash(%.10q…) = %v, want %v", tt.password, err, tt.want)
		}
	}
	for _, cost := range []int{-1, 0, 3, 17, 32} {
		if h, err := Hash("x", cost); err == nil {
			t.Errorf("Hash with cost %d = %s", cost, h)
		}
	}
	if strings.Contains(ErrTooLong.Error(), "%!") {
		t.Error(ErrTooLong)
	}
}

func TestMadePasswords(t *testing.T) {
	form := regexp.MustCompile(`^([a-km-np-z2-9]{4}-){4}[a-km-np-z2-9]{4}$`)
	seen := make(map[string]bool)
	for range 1000 {
		p := Generate()
		if !form.MatchString(p) || seen[p] {
			t.Fatalf("Generate() = %q, seen before: %v", p, seen[p])
		}
		seen[p] = true
	}
	if len(alphabet) != 32 {
		t.Errorf("%d characters, want 32", len(alphabet))
	}
}

func BenchmarkRememberedLogin(b *testing.B) {
	v := NewVerifier(VerifierOptions{Cost: MinCost})
	table := parse(b, "alice:"+hash4)
	for b.Loop() {
		if ok, err := v.Verify(b.Context(), Login{Table: table, User: addr("alice"), Password: "secret"}); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
