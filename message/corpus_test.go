package message

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checkCarried takes a message, small or spooled, puts fields in front, and reads it again.
func checkCarried(t *testing.T, raw []byte) {
	t.Helper()
	for _, padding := range []int{0, MemoryLimit} {
		original := append(bytes.Clone(raw), bytes.Repeat([]byte("x"), padding)...)
		m, err := Read(bytes.NewReader(original), t.TempDir(), noLimit)
		if errors.Is(err, ErrTooManyFields) && !bytes.Contains(raw, []byte("\r\n\r\n")) {
			return // all of it is a header
		}
		if err != nil {
			t.Fatal(err)
		}
		prefix := "Received: by us\r\n"
		m.Prepend(prefix)
		if len(raw) > 0 && (raw[0] == ' ' || raw[0] == '\t') {
			prefix += Separator
		}
		checkBytes(t, m, prefix, original)
		if added := m.Complete("ID", "example.org", clock); !strings.HasSuffix(added, "\r\n") && added != "" {
			t.Errorf("Complete adds %q", added)
		}
		m.Header.From()
		m.Close()
	}
}

func TestOddMessagesAreCarried(t *testing.T) {
	files, err := filepath.Glob("testdata/*.eml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			checkCarried(t, raw)
		})
	}
}

func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("../../shared/corpus/mail/*")
	if err != nil || len(files) == 0 {
		t.Logf("SKIP corpus: no files in ../../shared/corpus/mail (%v); testdata covers the same rules", err)
		return
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Parallel()
			checkCarried(t, raw)
			lf := bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
			checkCarried(t, bytes.ReplaceAll(lf, []byte("\n"), []byte("\r\n")))
		})
	}
}
