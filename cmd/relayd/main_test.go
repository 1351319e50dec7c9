package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayd/config"
	"relayd/internal/demo"
)

// files writes a configuration folder and returns the name of its relayd.toml.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "relayd.toml")
}

func TestExitCodes(t *testing.T) {
	const toml = "hostname = \"mx.example.test\"\npostmaster = \"me@elsewhere.test\"\n"
	good := files(t, map[string]string{"relayd.toml": toml, "domains/example.test/aliases": "*: me@elsewhere.test\n"})
	typo := files(t, map[string]string{"relayd.toml": toml, "domains/example.test/aliases": "# fine\nme you@elsewhere.test\n"})
	broken := files(t, map[string]string{"relayd.toml": "hostname = \"mx.example.test\"\n[limits]\nrecipents = 5\n", "domains/example.test/aliases": "me you\n"})
	elsewhere := files(t, map[string]string{"relayd.toml": toml + "forward.srs_domain = \"srs.example.test\"\n",
		"domains/example.test/domain.toml": "[send_as]\nbob = [\"x@elsewhere.test\"]\n"})
	unnamed := files(t, map[string]string{"relayd.toml": "# nothing\n"})
	for _, c := range []struct {
		args []string
		code int
		want string // in what is printed
	}{
		{[]string{"-version"}, 0, "relayd "},
		{[]string{"-help"}, 0, "-demo"},
		{[]string{"-frob"}, 2, "-frob"},
		{[]string{"start"}, 2, `"start" is not known`},
		{[]string{"-check", "-c", good}, 0, ""},
		{[]string{"-check", "-c", typo}, 78, typo[:len(typo)-len("relayd.toml")] + "domains/example.test/aliases:2: "},
		{[]string{"-check", "-c", elsewhere}, 0, elsewhere + ":3: srs_domain: srs.example.test is not hosted here"},
		{[]string{"-check", "-c", elsewhere}, 0, "domain.toml:2: send_as: there is no user bob"},
		{[]string{"-check", "-c", broken}, 78, broken + ":3: "},
		{[]string{"-check", "-c", broken}, 78, "domains/example.test/aliases:1: "},
		{[]string{"-check", "-c", unnamed}, 78, "hostname"},
		{[]string{"-check", "-c", "/nonexistent/relayd.toml"}, 78, "/nonexistent/relayd.toml"},
		{[]string{"-c", broken}, 78, "recipients"}, // the key that was meant
		{[]string{"-c", newerQueue(t)}, 78, "the queue was written by a newer relayd"},
	} {
		var out bytes.Buffer
		if code := run(c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("relayd %q: exit %d, want %d with %q:\n%s", c.args, code, c.code, c.want, &out)
		}
	}
}

// newerQueue writes a configuration whose queue has a segment of a version that is yet to come.
func newerQueue(t *testing.T) string {
	t.Helper()
	head := append([]byte("relayd"), 0, 255, 's', 'a', 'l', 't')
	sum := crc32.Checksum(head, crc32.MakeTable(crc32.Castagnoli))
	state := files(t, map[string]string{"queue/log/0000000001.log": string(binary.LittleEndian.AppendUint32(head, sum))})
	return files(t, map[string]string{"relayd.toml": fmt.Sprintf(
		"hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n", filepath.Dir(state))})
}

// A screen is written by many goroutines and watched by a test.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) waitFor(t *testing.T, want string) {
	t.Helper()
	for deadline := time.After(30 * time.Second); !strings.Contains(s.String(), want); {
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("no %q on the screen:\n%s", want, s)
		}
	}
}

func TestDemoShowsASignedMailAndLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	out := &screen{more: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- demo.Run(ctx, out, func(ctx context.Context, c *config.Config, log *slog.Logger) (demo.Daemon, error) {
			return start(ctx, c, log)
		})
	}()
	out.waitFor(t, "DKIM       pass by example.test (ed25519-sha256), pass by example.test (rsa-sha256)")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestADaemonGoesDownWhenItIsAsked(t *testing.T) {
	file := files(t, map[string]string{"relayd.toml": fmt.Sprintf("hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n", t.TempDir())})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	d, err := start(ctx, conf, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := start(ctx, conf, log); err == nil || !strings.Contains(err.Error(), "another relayd is running") {
		t.Errorf("a second daemon on the same state: %v", err)
	}
	if s := d.Status(); len(s.Listeners) != 1 || s.Listeners[0].Address != d.Address("smtp") || !s.Health.OK() {
		t.Errorf("status %+v", s)
	}
	if r, err := d.CheckQueue(ctx, nil); err != nil || len(r.Damage) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	stop()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestCheckSeesWhatTheDaemonWouldMiss(t *testing.T) {
	state := t.TempDir()
	file := files(t, map[string]string{
		"relayd.toml":                  fmt.Sprintf("hostname = \"mx.example.test\"\npostmaster = \"me@elsewhere.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n", state),
		"domains/example.test/aliases": "*: me@elsewhere.test\n",
	})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d, err := start(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { stop(); d.Wait() }()
	if err := os.Remove(filepath.Join(filepath.Dir(file), "domains/example.test/aliases")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run([]string{"-check", "-c", file}, &out, &out); code != 78 || !strings.Contains(out.String(), "the file is gone") {
		t.Errorf("exit %d:\n%s", code, &out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for change, want := range map[string]string{"[log]\nlevel = \"debug\"\n": "restart", "[log]\nlevl = \"debug\"\n": "levl"} {
		if err := os.WriteFile(file, append(text, change...), 0o644); err != nil {
			t.Fatal(err)
		}
		d.Reload()
		s := d.Status()
		if all := append(s.Problems, s.Warnings...); !strings.Contains(all.Error(), want) {
			t.Errorf("after %q status says %v", change, all)
		}
	}
}

func TestLogKeepsWhatIsPrivate(t *testing.T) {
	for format, want := range map[string]string{"text": "client=… from=<…@else.test>", "json": `"client":"…","from":"<…@else.test>"`} {
		var out bytes.Buffer
		newLogger(config.Log{Level: "info", Format: format, Privacy: "no-address"}, &out).Info("accepted", "client", "192.0.2.1", "from", "<bob@else.test>")
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s", format, &out)
		}
	}
}

// TestJSONIsWholeInTheJournal: it is for programs, which want the time and no level in front.
func TestJSONIsWholeInTheJournal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino))
	newLogger(config.Log{Level: "info", Format: "json"}, f).Info("one")
	if text, err := os.ReadFile(name); err != nil || !strings.HasPrefix(string(text), `{"time":`) {
		t.Errorf("%s, %v", text, err)
	}
}
