package delivery

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sh is a program for the test: a shell with a line to run.
func sh(line string) []string { return []string{"/bin/sh", "-c", line} }

func piped(body string) *Message { return message(body, "box@example.org") }

func TestExitStatusDecides(t *testing.T) {
	big := strings.Repeat("line of text\r\n", 100_000)
	for name, c := range map[string]struct {
		argv []string
		body string
		want string
	}{
		"taken":                         {sh("cat >/dev/null"), text, "250 2.0.0"},
		"temporary":                     {sh("cat >/dev/null; exit 75"), text, "451 4.3.0"},
		"refused":                       {sh("cat >/dev/null; exit 1"), text, "554 5.3.0"},
		"refused with another status":   {sh("exit 77"), text, "554 5.3.0"},
		"ended by a signal":             {sh("kill -KILL $$"), text, "451 4.3.0"},
		"not found":                     {[]string{"/nonexistent/program"}, text, "451 4.3.0"},
		"not in the path":               {[]string{"no-such-program-here"}, text, "451 4.3.0"},
		"cannot be run":                 {[]string{"/etc/passwd"}, text, "451 4.3.0"},
		"reads nothing, is content":     {sh("exit 0"), big, "250 2.0.0"},
		"reads a little, is content":    {sh("head -c 10 >/dev/null"), big, "250 2.0.0"},
		"reads nothing, refuses":        {sh("exit 1"), big, "554 5.3.0"},
		"says a lot":                    {sh("cat; cat /dev/zero | head -c 1000000 >&2"), big, "250 2.0.0"},
		"complains a lot":               {sh("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1"), text, "554 5.3.0"},
		"nothing in the way of a NUL":   {[]string{"/bin/true", "a\x00b"}, text, "451 4.3.0"},
		"an empty message":              {sh("test $(wc -c) = 0"), "", "250 2.0.0"},
		"all of a large message":        {sh("test $(wc -c) = 1400000"), big, "250 2.0.0"},
		"arguments are not for a shell": {[]string{"/usr/bin/test", "$(id)", "=", "$(id)"}, text, "250 2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Pipe(t.Context(), c.argv, piped(c.body))
			if !strings.HasPrefix(r.Reply.String(), c.want) || r.Host != "|"+c.argv[0] {
				t.Errorf("%v by %s", r.Reply.Error(), r.Host)
			}
			if len(r.Reply.Error()) > 2000 {
				t.Errorf("%d bytes of complaints", len(r.Reply.Error()))
			}
		})
	}
}

func TestProgramGetsTheMessage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("SECRET", "not for programs")
	r := Pipe(t.Context(), sh("{ echo $SENDER $RECIPIENT $SECRET; cat; } >"+out), piped(text))
	got, err := os.ReadFile(out)
	if want := "sender@relay.test box@example.org\n" + text; r.Reply.Code != 250 || err != nil || string(got) != want {
		t.Errorf("%v, %q", r.Reply.Error(), got)
	}
}

func TestComplaintIsForTheLogOnly(t *testing.T) {
	r := Pipe(t.Context(), sh("echo no such folder >&2; exit 1"), piped(text))
	if strings.Contains(r.Reply.String(), "folder") || !strings.Contains(r.Reply.Error(), "no such folder") {
		t.Errorf("%v", r.Reply.Error())
	}
}

// A program that hangs ends with all that it started, which would hold the message's pipe.
func TestProgramThatHangs(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	p := piper{time: 2 * time.Second, wait: 10 * time.Second}
	var r Result
	within(t, func() { r = p.run(t.Context(), sh("sleep 600 & echo $! >"+pid+"; wait"), piped(text)) })
	if !strings.HasPrefix(r.Reply.String(), "451 4.3.0") {
		t.Error(r.Reply.Error())
	}
	gone(t, pid)
}

func TestProgramEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := piped(text)
	m.Body = func() (io.ReadCloser, error) { // is read once the program has started
		return io.NopCloser(readerFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF })), nil
	}
	var r Result
	within(t, func() { r = Pipe(ctx, sh("exec sleep 600"), m) })
	if !strings.HasPrefix(r.Reply.String(), "451 4.3.0") {
		t.Error(r.Reply.Error())
	}
}

// gone waits until the process whose number is in a file has ended.
func gone(t *testing.T, file string) {
	t.Helper()
	pid := readPID(t, file)
	within(t, func() {
		for !ended(pid) {
			time.Sleep(time.Millisecond)
		}
	})
}

func readPID(t *testing.T, file string) int {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid < 2 {
		t.Fatalf("no process: %q", raw)
	}
	return pid
}

// ended reports whether a process is gone, or dead and only not yet collected by its parent.
func ended(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// A program may leave somebody behind who goes on with its standard error open.
func TestProgramLeavesAnotherBehind(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	p := piper{time: time.Minute, wait: 50 * time.Millisecond}
	r := p.run(t.Context(), sh("cat >/dev/null; sleep 600 & echo $! >"+pid), piped(text))
	if r.Reply.Code != 250 {
		t.Error(r.Reply.Error())
	}
	if err := syscall.Kill(readPID(t, pid), syscall.SIGKILL); err != nil {
		t.Errorf("who was left behind did not live on: %v", err)
	}
}

func TestPipedBodyCannotBeRead(t *testing.T) {
	disk := errors.New("input/output error")
	m := piped(text)
	m.Body = func() (io.ReadCloser, error) { return nil, disk }
	if r := Pipe(t.Context(), sh("exit 0"), m); r.Reply.Code != 451 || !errors.Is(r.Reply, disk) {
		t.Errorf("open: %v", r.Reply.Error())
	}
	m.Body = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(text), broken{disk})), nil
	}
	if r := Pipe(t.Context(), sh("cat >/dev/null"), m); r.Reply.Code != 451 || !errors.Is(r.Reply, disk) {
		t.Errorf("read: %v", r.Reply.Error())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What stands in an alias file reaches the program as it stands there: no shell reads it.
func TestNoShellReadsTheArguments(t *testing.T) {
	dir := t.TempDir()
	const name = "a;b && c | $(id) `id` > d * \"'"
	if r := Pipe(t.Context(), []string{"/bin/touch", filepath.Join(dir, name)}, piped(text)); r.Reply.Code != 250 {
		t.Fatal(r.Reply.Error())
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 || list[0].Name() != name {
		t.Errorf("there are %v, %v", list, err)
	}
}
