package message

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

const noLimit = 1 << 30

// take reads a message that must be taken, and closes it with the test.
func take(t testing.TB, raw []byte) *Message {
	t.Helper()
	m, err := Read(bytes.NewReader(raw), t.TempDir(), noLimit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func all(t rapid.TB, r io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkBytes checks that m gives prefix and original, more than once, however it is read.
func checkBytes(t rapid.TB, m *Message, prefix string, original []byte) {
	t.Helper()
	want := prefix + string(original)
	for range 2 {
		if got := all(t, m.Reader()); got != want {
			t.Fatalf("%d bytes differ from the %d expected, from %d on", len(got), len(want), differ(got, want))
		}
		if got := all(t, iotest.HalfReader(m.Original())); got != string(original) {
			t.Fatalf("the original of %d bytes is given as %d", len(original), len(got))
		}
	}
	if m.Size() != int64(len(want)) || m.OriginalSize() != int64(len(original)) {
		t.Fatalf("sizes %d and %d, not %d and %d", m.Size(), m.OriginalSize(), len(want), len(original))
	}
}

func differ(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func TestNoByteChanges(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(MemoryLimit-3, MemoryLimit+3), rapid.IntRange(0, 4*MemoryLimit)).Draw(t, "size")
		piece := rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte("\r\n.: \tA"))), 1, 60).Draw(t, "piece")
		header := rapid.SampledFrom([]string{"", "\r\n", "From: a@b.org\r\n\r\n", " x\r\n\r\n"}).Draw(t, "header")
		original := append([]byte(header), bytes.Repeat(piece, size/len(piece)+1)...)[:size]

		chunk := rapid.IntRange(1, 40<<10).Draw(t, "chunk")
		m, err := Read(&chunked{original, chunk}, dir, noLimit)
		if errors.Is(err, ErrTooManyFields) || errors.Is(err, ErrLoneDot) && bytes.Contains(original, nulDot) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if spooled := m.spool.file != nil; spooled != (size > MemoryLimit) {
			t.Fatalf("%d bytes in a file: %v", size, spooled)
		}
		prefix := ""
		for i, f := range rapid.SliceOfN(rapid.StringMatching(`X-[a-z]{1,9}: [a-z]{0,80}\r\n`), 0, 5).Draw(t, "fields") {
			if m.Prepend(f); i == 0 && size > 0 && (original[0] == ' ' || original[0] == '\t') {
				f += Separator
			}
			prefix = f + prefix
		}
		checkBytes(t, m, prefix, original)
		if m.EightBit != !isASCII(original) {
			t.Fatalf("EightBit is %v", m.EightBit)
		}
	})
	mustBeEmpty(t, dir)
}

// chunked gives its bytes in pieces, the last one together with io.EOF.
type chunked struct {
	rest  []byte
	chunk int
}

func (c *chunked) Read(b []byte) (int, error) {
	n := copy(b, c.rest[:min(c.chunk, len(c.rest))])
	c.rest = c.rest[n:]
	if len(c.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A first line with white space in front would continue our field, change it, and with it what
// our signature covers.
func TestMessageThatBeginsWithWhiteSpace(t *testing.T) {
	for _, start := range []string{" ", "\t", " \r\n", "\t: x\r\n"} {
		raw := []byte(start + "From: a@b.org\r\n\r\nx\r\n")
		m := take(t, raw)
		m.Prepend("")
		checkBytes(t, m, "", raw)
		m.Prepend("Received: by us\r\n")
		m.Prepend("DKIM-Signature: b=\r\n")
		checkBytes(t, m, "DKIM-Signature: b=\r\nReceived: by us\r\nX-Malformed: the message begins with white space\r\n", raw)
		h, err := ReadHeader(m.Reader())
		if err != nil || h.Get("Received") != "by us" || h.Get("DKIM-Signature") != "b=" {
			t.Errorf("%q is read as %q, %v", start, h.Raw(), err)
		}
	}
}

func TestLimit(t *testing.T) {
	for _, size := range []int{0, 1, 100, 32 << 10, MemoryLimit, MemoryLimit + 1, 200_000} {
		raw := bytes.Repeat([]byte("x"), size)
		dir := t.TempDir()
		m, err := Read(bytes.NewReader(raw), dir, int64(size))
		if err != nil {
			t.Errorf("%d of %d bytes: %v", size, size, err)
			continue
		}
		m.Close()
		if m, err := Read(bytes.NewReader(append(raw, 'x')), dir, int64(size)); !errors.Is(err, ErrTooLarge) || m != nil {
			t.Errorf("one byte over %d: %v", size, err)
		}
		mustBeEmpty(t, dir)
	}
}

func TestHeaderBounds(t *testing.T) {
	const end = "\r\n\r\nbody\r\n"
	field := func(n int) string { return strings.Repeat("A:"+strings.Repeat("x", n-4)+"\r\n", 1) }
	big := func(n int) string { return field(100_000) + field(100_000) + field(n-200_000) }
	tests := []struct {
		name, raw string
		want      error
	}{
		{"256 KiB", big(MaxHeaderBytes) + end, nil},
		{"one byte more", big(MaxHeaderBytes+1) + end, ErrHeaderTooLarge},
		{"two bytes more", big(MaxHeaderBytes+2) + end, ErrHeaderTooLarge},
		{"256 KiB and no blank line", big(MaxHeaderBytes), nil},
		{"more, and no blank line", big(MaxHeaderBytes + 1), ErrHeaderTooLarge},
		{"garbage without end", strings.Repeat("garbage\r\n", 100_000), ErrHeaderTooLarge},
		{"1000 fields", strings.Repeat("A:\r\n", 1000) + end, nil},
		{"1001 fields", strings.Repeat("A:\r\n", 1001) + end, ErrTooManyFields},
		{"1001 fields past the memory", strings.Repeat("A:"+strings.Repeat("x", 200)+"\r\n", 1001) + end, ErrTooManyFields},
		{"blank line at the end of the memory", big(200_100)[:MemoryLimit-2] + end, nil},
		{"large body", "A: x\r\n\r\n" + strings.Repeat("body\r\n", 100_000), nil},
		{"fields in the body", "A: x\r\n\r\n" + strings.Repeat("A:\r\n", 2000), nil},
		{"1000 lines of one field", "A:\r\n" + strings.Repeat(" x\r\n", 2000) + end, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			m, err := Read(strings.NewReader(tt.raw), dir, noLimit)
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			mustBeEmpty(t, dir)
			if err != nil {
				return
			}
			defer m.Close()
			head, _, _ := strings.Cut(tt.raw, "\r\n\r\n")
			if got := strings.TrimSuffix(string(m.Header.Raw()), "\r\n"); got != strings.TrimSuffix(head, "\r\n") {
				t.Errorf("the header ends at %d, not %d", len(got), len(head))
			}
		})
	}
}

// A message at the very bounds must still be readable with our own fields in front, or the queue
// would hold mail that it cannot work on.
func TestOwnFieldsFitInFrontOfTheLargestHeader(t *testing.T) {
	for _, raw := range []string{
		"A:" + strings.Repeat("x", MaxHeaderBytes-4) + "\r\n\r\n", strings.Repeat("A:\r\n", MaxHeaderFields) + "\r\n",
	} {
		m := take(t, []byte(raw))
		m.Prepend("Received: by us\r\n" + strings.Repeat("DKIM-Signature: "+strings.Repeat("x", 1000)+"\r\n", 10))
		if h, err := ReadHeader(m.Reader()); err != nil || h.Get("Received") != "by us" {
			t.Errorf("read again: %v", err)
		}
	}
}

func TestErrorsOfTheReaderComeThrough(t *testing.T) {
	lost := errors.New("connection lost")
	for _, before := range []int{0, 10, MemoryLimit + 10} {
		dir := t.TempDir()
		r := io.MultiReader(bytes.NewReader(make([]byte, before)), iotest.ErrReader(lost))
		if m, err := Read(r, dir, noLimit); err != lost || m != nil {
			t.Errorf("after %d bytes: %v, %v", before, m, err)
		}
		mustBeEmpty(t, dir)
	}
}

func TestStorageErrors(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	_, err := Read(bytes.NewReader(make([]byte, MemoryLimit+1)), gone, noLimit)
	if s, ok := errors.AsType[*StorageError](err); !ok || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v, %v", s, err)
	}
	if m, err := Read(bytes.NewReader(make([]byte, MemoryLimit)), gone, noLimit); err != nil {
		t.Errorf("a small message needs no folder: %v", err)
	} else {
		m.Close()
	}

	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0) // a disk without room
	if err != nil {
		t.Fatal(err)
	}
	m := &Message{spool: spool{file: full}}
	defer m.Close()
	err = m.fill(strings.NewReader("x"), noLimit)
	if _, ok := errors.AsType[*StorageError](err); !ok || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
}

func TestCloseFreesTheFile(t *testing.T) {
	m := take(t, make([]byte, MemoryLimit+1))
	f := m.spool.file
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file is still open: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}
