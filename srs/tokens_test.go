package srs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, path string, now time.Time) *FileTokens {
	t.Helper()
	tokens, err := openTokens(path, now, 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tokens.Close() })
	return tokens
}

func put(t *testing.T, tokens *FileTokens, sender string, expires time.Time) string {
	t.Helper()
	token, err := tokens.Put(sender, expires)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	return info.Size()
}

func TestTokensSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokens := open(t, path, noon)
	senders := []string{"Alice@example.org", "alice@example.org", `"a b\"c"@x.org`, "ñ@xn--bcher-kva.example", "line\nend"}
	var names []string
	for _, s := range senders {
		token := put(t, tokens, s, noon.Add(22*day))
		if len(token) > 40 || strings.ToLower(token) != token {
			t.Errorf("token %q", token)
		}
		names = append(names, token)
	}
	tokens.Close()
	tokens = open(t, path, noon)
	for i, s := range senders {
		if got, ok := tokens.Get(names[i]); got != s || !ok {
			t.Errorf("%q is now %q", s, got)
		}
		if again := put(t, tokens, s, noon.Add(22*day)); again != names[i] {
			t.Errorf("%q got token %s and then %s", s, names[i], again)
		}
	}
	if _, ok := tokens.Get("unknown"); ok {
		t.Error("an unknown token is known")
	}
}

// A sender that writes every day adds a line a week.
func TestRepeatsDoNotGrowTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokens := open(t, path, noon)
	put(t, tokens, "alice@example.org", noon)
	before := size(t, path)
	for i := range 8 {
		put(t, tokens, "alice@example.org", noon.Add(time.Duration(i)*day))
	}
	if grown := size(t, path); grown != before {
		t.Errorf("the file grew from %d to %d bytes", before, grown)
	}
	put(t, tokens, "alice@example.org", noon.Add(8*day))
	if grown := size(t, path); grown <= before {
		t.Error("the later date is not in the file")
	}
	tokens.Close()
	open(t, path, noon.Add(8*day))
	if shrunk := size(t, path); shrunk != before {
		t.Errorf("compacted to %d bytes, want %d", shrunk, before)
	}
}

func TestExpiredTokensGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokens := open(t, path, noon)
	gone := put(t, tokens, "gone@example.org", noon)
	kept := put(t, tokens, "kept@example.org", noon.Add(30*day))
	tokens.Close()
	tokens = open(t, path, noon.Add(20*day))
	if _, ok := tokens.Get(gone); ok {
		t.Error("an expired entry is kept")
	}
	if _, ok := tokens.Get(kept); !ok {
		t.Error("an entry is lost")
	}
}

// Whatever happens to a line, the others are read.
func TestDamagedLinesAreSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokens := open(t, path, noon)
	var names []string
	for i := range 4 {
		names = append(names, put(t, tokens, fmt.Sprintf("s%d@example.org", i), noon))
	}
	tokens.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for name, tt := range map[string]struct {
		text []byte
		lost int // index of the sender whose line is damaged, -1 for none
	}{
		"flipped bit":   {bytes.Replace(whole, []byte("s2@"), []byte("s3@"), 1), 2},
		"torn end":      {whole[:len(whole)-5], 3},
		"no line end":   {whole[:len(whole)-1], 3},
		"no key":        {bytes.Join(lines[1:], nil), -1},
		"rubbish":       {append(bytes.Repeat([]byte("\x00"), 100_000), append([]byte("\n"), whole...)...), -1},
		"empty line":    {append([]byte("\n"), whole...), -1},
		"written twice": {append(bytes.Clone(whole), whole...), -1},
	} {
		if err := os.WriteFile(path, tt.text, 0o644); err != nil {
			t.Fatal(err)
		}
		tokens := open(t, path, noon)
		for i, token := range names {
			if _, ok := tokens.Get(token); ok == (i == tt.lost) {
				t.Errorf("%s: sender %d is known: %v", name, i, ok)
			}
		}
		token := put(t, tokens, "new@example.org", noon)
		tokens.Close()
		if _, ok := open(t, path, noon).Get(token); !ok {
			t.Errorf("%s: what was written after it is lost", name)
		}
		size(t, path)
	}
}

// A stranger with many long senders pushes out the oldest entries, and the file stays small.
func TestTokensAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokens := open(t, path, noon)
	var last string
	for i := range 1000 {
		last = put(t, tokens, fmt.Sprintf("s%d@example.org", i), noon.Add(time.Duration(i)*time.Minute))
		if n := len(tokens.entries); n > 100 {
			t.Fatalf("%d entries", n)
		}
	}
	if _, ok := tokens.Get(last); !ok {
		t.Error("the newest entry is gone")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n > 201 {
		t.Errorf("%d lines", n)
	}
}

// After a write that failed half-way the next entry is not glued to the rest of it.
func TestTornWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokens := open(t, path, noon)
	if _, err := tokens.file.WriteString("half a li"); err != nil {
		t.Fatal(err)
	}
	tokens.torn = true
	token := put(t, tokens, "alice@example.org", noon)
	tokens.Close()
	if _, ok := open(t, path, noon).Get(token); !ok {
		t.Error("the entry after it is lost")
	}
}

// A disk that did not keep its word once is not asked again.
func TestFailedSyncIsFinal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokens := open(t, path, noon)
	pipe, w, err := os.Pipe() // a pipe can be written to, but not synced
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	good := tokens.file
	tokens.file = w
	if _, err := tokens.Put("alice@example.org", noon); err == nil {
		t.Fatal("Put ignores a failed sync")
	}
	tokens.file = good
	w.Close()
	if _, err := tokens.Put("bob@example.org", noon); err == nil {
		t.Error("Put goes on after a failed sync")
	}
}

func TestTokensTogether(t *testing.T) {
	tokens := open(t, filepath.Join(t.TempDir(), "tokens"), noon)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 10 {
				sender := fmt.Sprintf("s%d@example.org", i*j)
				token, err := tokens.Put(sender, noon)
				if got, ok := tokens.Get(token); err != nil || !ok || got != sender {
					t.Errorf("%s is %s, %v", sender, got, err)
				}
			}
		})
	}
	all.Wait()
	tokens.Close()
	if _, err := tokens.Put("x@example.org", noon); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestOpenTokensErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenTokens(dir); err == nil {
		t.Error("a folder was opened")
	}
	if _, err := OpenTokens(filepath.Join(dir, "no", "tokens")); err == nil {
		t.Error("a file in a folder that does not exist was opened")
	}
	tokens, err := OpenTokens(filepath.Join(dir, "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tokens.Close(), tokens.Close()); err != nil {
		t.Error(err)
	}
}

// FuzzTokens opens any file. It must open, and hold what is then put into it.
func FuzzTokens(f *testing.F) {
	line := formatToken("abc", storedSender{"a@x.org", noon})
	f.Add([]byte(line))
	f.Add([]byte(formatLine("key 00ff") + line + line[:10]))
	f.Add([]byte(formatLine("key") + formatLine("abc 1") + formatLine(`abc 1 "`)))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		tokens := open(t, path, noon)
		token := put(t, tokens, "new@example.org", noon)
		tokens.Close()
		if _, ok := open(t, path, noon).Get(token); !ok {
			t.Fatal("the entry is lost")
		}
	})
}
