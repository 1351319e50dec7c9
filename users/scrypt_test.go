package users

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"

	"relayd/address"
)

// oldHash is of "secret", as it was made by chasquid-util 1.11.
const oldHash = "$scrypt$ln=14,r=8,p=1$LBK/J4MKX/SP1v+pvrE8Gg$e3MdJtmMouGdpV8Z04aF0relH6/g99mcyD3uyij27eI"

// quickHash is of "secret" too, by so few rounds that it takes no time.
func quickHash(t *testing.T) string {
	t.Helper()
	s := Scrypt{LogN: 4, R: 8, P: 1, Salt: []byte("salt")}
	var err error
	if s.Key, err = scrypt.Key([]byte("secret"), s.Salt, 1<<s.LogN, s.R, s.P, 32); err != nil {
		t.Fatal(err)
	}
	hash, err := s.Format()
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func TestAHashOfChasquidsVerifies(t *testing.T) {
	v, _, _ := counted(VerifierOptions{})
	table := parse(t, "app:"+oldHash)
	if !verify(t, v, table, "app:secret") || verify(t, v, table, "app:secreT") {
		t.Error("right is wrong, or wrong is right")
	}
}

func TestHashesByScryptThatAreRefused(t *testing.T) {
	if _, err := Parse("f", strings.NewReader("a:"+oldHash+"\nb:!"+oldHash+":x\n")); err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) string { return strings.Replace(oldHash, old, new, 1) }
	for name, hash := range map[string]string{
		"too much memory":         swap("ln=14", "ln=17"),
		"memory by r":             swap("r=8", "r=33"),
		"rounds past every limit": swap("ln=14", "ln=63"),
		"no rounds":               swap("ln=14", "ln=0"),
		"no blocks":               swap("r=8", "r=0"),
		"too many parts":          swap("p=1", "p=5"),
		"another order":           swap("ln=14,r=8", "r=8,ln=14"),
		"a sign":                  swap("r=8", "r=+8"),
		"a zero in front":         swap("r=8", "r=08"),
		"padding":                 oldHash + "=",
		"loose bits":              swap("vrE8Gg", "vrE8Gh"),
		"no salt":                 swap("LBK/J4MKX/SP1v+pvrE8Gg", ""),
		"a short key":             oldHash[:len(oldHash)-24],
		"a long key":              oldHash + strings.Repeat("A", 64),
		"one part too many":       oldHash + "$",
		"a part missing":          swap("$LBK", "LBK"),
		"behind Dovecot's scheme": "{BLF-CRYPT}" + oldHash,
	} {
		if _, err := Parse("f", strings.NewReader("a:"+hash)); err == nil {
			t.Errorf("%s: %s is taken", name, hash)
		} else if strings.Contains(err.Error(), hash[20:40]) {
			t.Errorf("%s: the complaint quotes the hash: %v", name, err)
		}
	}
}

func TestARightLoginReplacesAHashByScrypt(t *testing.T) {
	type upgrade struct{ addr, old, hash string }
	old := quickHash(t)
	tests := []struct {
		name, text, login string
		right, upgraded   bool
	}{
		{"right", "alice:" + old, "Alice:secret", true, true},
		{"wrong", "alice:" + old, "alice:Secret", false, false},
		{"longer than bcrypt can hold", "alice:" + old, "alice:secret" + strings.Repeat("x", 80), false, false},
		{"disabled", "alice:!" + old, "alice:secret", false, false},
		{"unknown", "alice:" + old, "bob:secret", false, false},
		{"by bcrypt already", "alice:" + hash4, "alice:secret", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []upgrade
			v, count, _ := counted(VerifierOptions{Upgrade: func(a address.Address, known, hash string) {
				got = append(got, upgrade{a.Key(), known, hash})
			}})
			table := parse(t, tt.text)
			for range 2 { // the second is remembered, or wrong once more
				if right := verify(t, v, table, tt.login); right != tt.right {
					t.Errorf("login: %v", right)
				}
			}
			if n := count.Load(); n != 1 && tt.right || n != 2 && !tt.right {
				t.Errorf("%d comparisons", n)
			}
			if !tt.upgraded {
				if got != nil {
					t.Errorf("replaced: %v", got)
				}
				return
			}
			if len(got) != 1 || got[0].addr != "alice@example.org" || got[0].old != old {
				t.Fatalf("replaced: %v", got)
			}
			if err := bcrypt.CompareHashAndPassword([]byte(got[0].hash), []byte("secret")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestManyLoginsAtOnceReplaceAHashOnce(t *testing.T) {
	var mu sync.Mutex
	upgrades := 0
	v := NewVerifier(VerifierOptions{Cost: MinCost, Upgrade: func(address.Address, string, string) {
		mu.Lock()
		defer mu.Unlock()
		upgrades++
	}})
	table := parse(t, "alice:"+quickHash(t))
	var in sync.WaitGroup
	for range 20 {
		in.Go(func() { verify(t, v, table, "alice:secret") })
	}
	in.Wait()
	if upgrades != 1 {
		t.Errorf("replaced %d times", upgrades)
	}
}

func TestReplaceIsOfTheHashThatIsKnown(t *testing.T) {
	for _, tt := range []struct {
		text, want string
		err        error
	}{
		{"#\nBob:" + oldHash + ":x\r\na:" + oldHash, "#\nBob:" + hash4 + ":x\r\na:" + oldHash, nil},
		{"bob:!" + oldHash, "bob:!" + hash4, nil},
		{"bob:" + otherHash, "", ErrChanged},
		{"a:" + oldHash, "", ErrNoUser},
		{"", "", ErrNoUser},
	} {
		got, err := Replace([]byte(tt.text), "bob", oldHash, hash4)
		if string(got) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q became %q, %v", tt.text, got, err)
		}
	}
}

func FuzzScrypt(f *testing.F) {
	f.Add(oldHash)
	f.Add("$scrypt$ln=1,r=1,p=1$AA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$scrypt$ln=16,r=8,p=4$$")
	f.Fuzz(func(t *testing.T, hash string) {
		s, err := parseScrypt(hash)
		if err != nil {
			return
		}
		if again, err := s.Format(); err != nil || again != hash {
			t.Fatalf("%q is read as %q, %v", hash, again, err)
		}
		if 128*s.R<<s.LogN > maxScryptMemory || s.P > maxScryptP || s.LogN < 1 || s.R < 1 || s.P < 1 {
			t.Fatalf("%+v is out of bounds", s)
		}
	})
}
