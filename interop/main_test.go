//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// root is the project's folder as seen from this package's.
const root = ".."

// python is Debian's: modules like dkim are installed for it and for no other on the PATH.
const python = "/usr/bin/python3"

// full reports whether the long campaigns are wanted.
func full() bool { return os.Getenv("RELAYD_FULL") == "1" }

// A build is one of our programs, made when a test first asks for it.
type build struct {
	once sync.Once
	path string
	err  error
}

var (
	builds = map[string]*build{"relayd": {}, "relay-util": {}}
	binDir string
)

func TestMain(m *testing.M) {
	var err error
	if binDir, err = os.MkdirTemp("", "relayd-interop-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(binDir)
	os.Remove("/etc/netns") // if it was made for us
	os.Exit(code)
}

// program builds one of our programs and returns its path.
func program(t testing.TB, name string) string {
	t.Helper()
	b := builds[name]
	b.once.Do(func() {
		b.path = filepath.Join(binDir, name)
		cmd := exec.Command("go", "build", "-o", b.path, "./cmd/"+name)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}

// peer finds a program of the system's. Its absence is a failure, not a reason to skip.
func peer(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	t.Fatalf("%s is not installed; ./check installs what is missing", name)
	return ""
}

// mustRun runs a program to its end and returns what it printed on standard output.
func mustRun(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = exit.Stderr
		}
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, stderr)
	}
	return string(out)
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
