package domains

import (
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"relayd/address"
)

const (
	scryptHash = "$scrypt$ln=14,r=8,p=1$LBK/J4MKX/SP1v+pvrE8Gg$e3MdJtmMouGdpV8Z04aF0relH6/g99mcyD3uyij27eI"
	laterHash  = "$2y$04$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestRehashChangesOneLine(t *testing.T) {
	app := address.Address{Local: "App", Domain: "a.example"}
	tests := []struct {
		name, text, want, log string
	}{
		{"a hash by scrypt", "# x\napp:" + scryptHash + "\nme:" + scryptHash + "\n", "# x\napp:" + userHash + "\nme:" + scryptHash + "\n", "level=INFO"},
		{"somebody was faster", "app:" + laterHash + "\n", "app:" + laterHash + "\n", "level=DEBUG"},
		{"the user is gone", "me:" + scryptHash + "\n", "me:" + scryptHash + "\n", "level=DEBUG"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.write("A.example/users", "app:"+scryptHash+"\n")
			s := h.open()
			h.write("A.example/users", tt.text) // after what the daemon has read
			s.opt.Log = slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			if err := os.Chmod(h.path("A.example/users"), 0o640); err != nil {
				t.Fatal(err)
			}
			s.Rehash(app, scryptHash, userHash)
			text, err := os.ReadFile(h.path("A.example/users"))
			if err != nil || string(text) != tt.want {
				t.Errorf("%q, %v", text, err)
			}
			if info, err := os.Stat(h.path("A.example/users")); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if !strings.Contains(h.log.String(), tt.log) {
				t.Errorf("logged: %s", h.log.String())
			}
		})
	}
}

// A login must not wait for somebody who edits the file, or forgot that they do.
func TestRehashDoesNotWait(t *testing.T) {
	h := newHost(t)
	h.write("a.example/users", "app:"+scryptHash+"\n")
	s := h.open()
	unlock, err := lock(h.path("a.example"), syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	s.Rehash(address.Address{Local: "app", Domain: "a.example"}, scryptHash, userHash)
	unlock()
	if text, _ := os.ReadFile(h.path("a.example/users")); string(text) != "app:"+scryptHash+"\n" {
		t.Errorf("%s", text)
	}
	s.Rehash(address.Address{Local: "app", Domain: "gone.example"}, scryptHash, userHash)
	s.Rehash(address.Address{Local: "app", Domain: "a.example"}, scryptHash, userHash)
	if text, _ := os.ReadFile(h.path("a.example/users")); string(text) != "app:"+userHash+"\n" {
		t.Errorf("%s", text)
	}
}
