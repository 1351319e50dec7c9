package message

import (
	"io"
	"strings"
	"testing"
)

func TestMemoryIsShared(t *testing.T) {
	memory := NewMemory(100)
	text := "Subject: x\r\n\r\n" + strings.Repeat("x", 30) + "\r\n" // 46 bytes
	var open []*Message
	for i := range 5 {
		m, err := memory.Read(strings.NewReader(text), t.TempDir(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if inFile := m.spool.file != nil; inFile != (i >= 2) {
			t.Errorf("message %d is in a file: %v", i, inFile)
		}
		if got, err := io.ReadAll(m.Reader()); err != nil || string(got) != text || m.Header.Get("Subject") != "x" {
			t.Errorf("message %d: %q, %v", i, got, err)
		}
		open = append(open, m)
	}
	if memory.Used() != 92 {
		t.Errorf("%d bytes are used", memory.Used())
	}
	for _, m := range open {
		m.Close()
		m.Close()
	}
	if _, err := memory.Read(strings.NewReader(strings.Repeat("x", 200)), t.TempDir(), 150); err != ErrTooLarge {
		t.Error(err)
	}
	if memory.Used() != 0 {
		t.Errorf("%d bytes are used in the end", memory.Used())
	}
}

// TestMemoryIsGivenBackByLargeOnes: what came before the file was in memory, too.
func TestMemoryIsGivenBackByLargeOnes(t *testing.T) {
	memory := NewMemory(1 << 20)
	m, err := memory.Read(strings.NewReader("Subject: x\r\n\r\n"+strings.Repeat("x", 2*MemoryLimit)), t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if used := memory.Used(); used < 0 || used > MemoryLimit {
		t.Errorf("%d bytes are used", used)
	}
	if m.Close(); memory.Used() != 0 {
		t.Errorf("%d bytes are used in the end", memory.Used())
	}
}

type panicking struct{ first io.Reader }

func (p *panicking) Read(b []byte) (int, error) {
	if n, err := p.first.Read(b); err == nil {
		return n, nil
	}
	panic("poison")
}

// TestAPanicGivesMemoryBack: who brings a session to one again and again must not use up what all share.
func TestAPanicGivesMemoryBack(t *testing.T) {
	memory := NewMemory(100)
	func() {
		defer func() { recover() }()
		memory.Read(&panicking{strings.NewReader("Subject: x\r\n")}, t.TempDir(), 1<<20)
	}()
	if memory.Used() != 0 {
		t.Errorf("%d bytes are used", memory.Used())
	}
}
