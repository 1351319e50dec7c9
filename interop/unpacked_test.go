//go:build interop

package interop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unpacked finds the files of a Debian package that cannot be installed beside Postfix; ./check
// unpacks it. Its absence is a failure, not a reason to skip.
func unpacked(t testing.TB, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "relayd-check", name)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("%s is missing; ./check unpacks it, and so does: cd /tmp && apt-get download %s && dpkg -x %s_*.deb %s", name, name, name, dir)
	}
	return dir
}

// A household is what a server of others has for itself alone: its own /etc, and an empty /var.
type household struct {
	ns    *namespace
	dir   string // holds etc, and mail for what arrives
	files string // of the package
}

// idBox is the user ID, and the group's, of who gets all mail. Nobody else has it.
const idBox = 61999

// newHousehold makes one with the system users of a server and with one more who gets the mail.
// inEtc are files of /etc by name.
func newHousehold(ns *namespace, pkg string, users []string, inEtc map[string]string) *household {
	t := ns.t
	t.Helper()
	dir, err := os.MkdirTemp("", "relayd-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &household{ns: ns, dir: dir, files: unpacked(t, pkg)}
	passwd, group := "root:x:0:0::/root:/bin/sh\n", "root:x:0:\n"
	for i, name := range append(users, "box") {
		id := idBox - len(users) + i
		passwd += fmt.Sprintf("%s:x:%d:%d::/var/empty:/bin/sh\n", name, id, id)
		group += fmt.Sprintf("%s:x:%d:\n", name, id)
	}
	err = errors.Join(os.Chmod(dir, 0o755), os.MkdirAll(h.path("mail/new"), 0o755), os.MkdirAll(h.path("mail/cur"), 0o755), os.MkdirAll(h.path("mail/tmp"), 0o755))
	for _, sub := range []string{"mail", "mail/new", "mail/cur", "mail/tmp"} {
		err = errors.Join(err, os.Chown(h.path(sub), idBox, idBox))
	}
	if err != nil {
		t.Fatal(err)
	}
	h.write("passwd", passwd)
	h.write("group", group)
	h.write("resolv.conf", "nameserver 127.0.0.1\n")
	h.write("hosts", "127.0.0.1 localhost\n")
	for name, text := range inEtc {
		h.write(name, strings.ReplaceAll(text, "DIR", dir))
	}
	return h
}

func (h *household) path(name string) string { return filepath.Join(h.dir, name) }

// write writes a file of /etc. A private key in it is for root alone.
func (h *household) write(name, text string) {
	h.ns.t.Helper()
	file := h.path("etc/" + name)
	mode := os.FileMode(0o644)
	if strings.HasSuffix(name, ".key") {
		mode = 0o600
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode)); err != nil {
		h.ns.t.Fatal(err)
	}
}

// command is a program of the package, named by its path below /usr. It, and prepare before it, see
// the household's /etc and /var, with the package's files in /var/package; nobody else does, for
// ip-netns(8) gives each program its own mounts.
func (h *household) command(prepare, program string, args ...string) *exec.Cmd {
	script := `mount --bind "$1" /etc
		mount -t tmpfs -o mode=755 none /var
		mkdir /var/package /var/empty /var/run /var/spool
		mount --bind "$2" /var/package
		` + prepare + `
		shift 2
		exec "$@"`
	return h.ns.command(peer(h.ns.t, "sh"), append([]string{"-ec", script, "sh", h.path("etc"), h.files, "/var/package/usr/" + program}, args...)...)
}

// received are the messages in the mailbox, by file name.
func (h *household) received() map[string][]byte { return readMaildir(h.path("mail")) }

// readMaildir reads the messages in a Maildir that nobody has looked at yet, by file name.
func readMaildir(dir string) map[string][]byte {
	messages := map[string][]byte{}
	files, _ := os.ReadDir(filepath.Join(dir, "new")) // there may be no folder before the first
	for _, f := range files {
		if text, err := os.ReadFile(filepath.Join(dir, "new", f.Name())); err == nil {
			messages[f.Name()] = text
		}
	}
	return messages
}
