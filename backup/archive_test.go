package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes a folder with files, or folders where a name ends in a slash.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(file, 0o755)
		} else if err == nil {
			err = os.WriteFile(file, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// content lists what is in a folder: path, mode and text of each file.
func content(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		text := []byte{}
		if info.Mode().IsRegular() {
			text, err = os.ReadFile(name)
		}
		b.WriteString(info.Mode().String() + " " + strings.TrimPrefix(name, dir+"/") + " " + string(text) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func bounded(dirs map[string]string) target {
	return target{Dirs: dirs, MaxMembers: 100, MaxBytes: 1 << 20}
}

func TestWhatWasWrittenComesBack(t *testing.T) {
	config := write(t, map[string]string{"relayd.toml": "x", "domains/a.example/users": "u", "domains/empty/": "", ".git/config": "g", "state/queue": "q"})
	elsewhere := write(t, map[string]string{"live/key": "k"})
	when := time.Unix(1_700_000_000, 0)
	if err := errors.Join(
		os.Symlink(elsewhere+"/live", config+"/certs"),
		os.Symlink("nowhere", config+"/broken"),
		os.Chmod(config+"/domains/a.example/users", 0o640),
		os.Chmod(config+"/domains/a.example", 0o550),
		os.Chtimes(config+"/relayd.toml", when, when),
	); err != nil {
		t.Fatal(err)
	}
	parts := []part{
		{Name: "config", Dir: config, Skip: func(name string, _ fs.FileInfo) bool { return name == "state" }},
		{Name: "none", Dir: config + "/gone"},
		{Name: "state", Dir: config + "/state"},
	}
	var one, two bytes.Buffer
	summary, err := pack(&one, parts)
	if err != nil || summary.Files != 4 || summary.Bytes != 4 || !slices.Equal(summary.Left, []string{config + "/broken"}) {
		t.Fatalf("%+v, %v", summary, err)
	}
	if _, err := pack(&two, parts); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("the same files make another archive: %v", err)
	}
	c, s := t.TempDir(), t.TempDir()
	got, err := unpack(&one, bounded(map[string]string{"config": c, "state": s}))
	if err != nil || got.Files != 4 || got.Bytes != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := "drwxr-xr-x certs \n-rw------- certs/key k\ndrwxr-xr-x domains \ndr-xr-x--- domains/a.example \n" +
		"-rw-r----- domains/a.example/users u\ndrwxr-xr-x domains/empty \n-rw------- relayd.toml x\n"
	if text := content(t, c); text != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
	if text := content(t, s); text != "-rw------- queue q\n" {
		t.Errorf("got\n%s", text)
	}
	if info, err := os.Stat(c + "/relayd.toml"); err != nil || !info.ModTime().Equal(when) {
		t.Errorf("%v, %v", info.ModTime(), err)
	}
	two.Truncate(two.Len() - 4)
	if _, err := unpack(&two, bounded(nil)); !errors.Is(err, ErrNoBackup) {
		t.Errorf("without its end: %v", err)
	}
}

func TestACircleOfLinksEnds(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(".", dir+"/again"); err != nil {
		t.Fatal(err)
	}
	if _, err := pack(&bytes.Buffer{}, []part{{Name: "config", Dir: dir}}); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Error(err)
	}
}

// TestLinksOfOthersLeadOutOfNoArchive: the state folder is the relay's user's, who could put links to what
// root alone may read there.
func TestLinksOfOthersLeadOutOfNoArchive(t *testing.T) {
	root := os.Geteuid() == 0
	system := write(t, map[string]string{"shadow": "s", "folder/x": "x"})
	state := write(t, map[string]string{"own/key": "k"})
	for name, to := range map[string]string{"shadow": system + "/shadow", "folder": system + "/folder", "queue": system + "/folder", "cert": "own"} {
		if err := os.Symlink(to, state+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"own", "own/key", "shadow", "folder", "cert"} { // the link queue is root's
		if err := os.Lchown(state+"/"+name, uidOf(root), -1); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	summary, err := pack(&b, []part{{Name: "state", Dir: state}})
	if err != nil {
		t.Fatal(err)
	}
	want, left := 3, []string{state + "/folder", state + "/shadow"}
	if !root {
		want, left = 5, nil
	}
	if summary.Files != want || !slices.Equal(summary.Left, left) {
		t.Errorf("%+v", summary)
	}
}

func uidOf(root bool) int {
	if root {
		return 1234
	}
	return os.Geteuid()
}

func TestAPartComesOutAlone(t *testing.T) {
	dir := write(t, map[string]string{"a": "1", "queue/x": "2"})
	var b bytes.Buffer
	if _, err := pack(&b, []part{{Name: "config", Dir: dir}, {Name: "state", Dir: dir}}); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	target := bounded(map[string]string{"state": to})
	target.Skip = func(name string) bool { return strings.HasPrefix(name, "state/queue") }
	if _, err := unpack(&b, target); err != nil || content(t, to) != "-rw------- a 1\n" {
		t.Errorf("%v, %s", err, content(t, to))
	}
}

// archive makes one of headers as they are; each file holds one byte.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, h := range headers {
		text := "x"
		if h.Name == markName {
			text = markText
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}
}

func folder(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700}
}

func TestArchivesThatAreRefused(t *testing.T) {
	mark, top := file(markName), folder("config/")
	for name, headers := range map[string][]tar.Header{
		"without a mark":    {top, file("config/a")},
		"an absolute path":  {mark, top, file("/config/a")},
		"up":                {mark, top, file("config/../../a")},
		"up from the start": {mark, top, file("../a")},
		"up to a folder":    {mark, top, folder("config/../")},
		"only up":           {mark, folder("..")},
		"an absolute link":  {mark, top, {Typeflag: tar.TypeSymlink, Name: "config/a", Linkname: "/etc/passwd"}, file("config/a/b")},
		"a link as folder":  {mark, {Typeflag: tar.TypeSymlink, Name: "config", Linkname: "/etc"}, file("config/a")},
		"a link up":         {mark, top, {Typeflag: tar.TypeLink, Name: "config/a", Linkname: "../../etc/passwd"}},
		"a block device":    {mark, top, {Typeflag: tar.TypeBlock, Name: "config/a", Devmajor: 8}},
		"a current folder":  {mark, top, file("config/./a")},
		"a hidden file":     {mark, top, file("config/.ssh")},
		"no folder":         {mark, top, file("a")},
		"a double slash":    {mark, top, file("config//a")},
		"twice":             {mark, top, file("config/a"), file("config/a")},
		"a file as folder":  {mark, top, file("config/a"), file("config/a/b")},
		"no folder before":  {mark, top, file("config/a/b")},
		"a link":            {mark, top, {Typeflag: tar.TypeSymlink, Name: "config/a", Linkname: "/etc"}},
		"a hard link":       {mark, top, file("config/b"), {Typeflag: tar.TypeLink, Name: "config/a", Linkname: "config/b"}},
		"a device":          {mark, top, {Typeflag: tar.TypeChar, Name: "config/a", Devmajor: 1, Devminor: 3}},
		"a pipe":            {mark, top, {Typeflag: tar.TypeFifo, Name: "config/a"}},
		"too deep":          {mark, top, folder("config/" + strings.Repeat("a/", 40))},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := unpack(bytes.NewReader(archive(t, headers...)), bounded(map[string]string{"config": dir}))
			if !errors.Is(err, ErrNoBackup) {
				t.Errorf("%v; there is now\n%s", err, content(t, dir))
			}
		})
	}
	for name, data := range map[string]string{"nothing": "", "no gzip": "hello", "no tar": string(gzipped("hello"))} {
		if _, err := unpack(strings.NewReader(data), bounded(nil)); !errors.Is(err, ErrNoBackup) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.Bytes()
}

func TestABackupHasBounds(t *testing.T) {
	data := archive(t, file(markName), folder("config/"), file("config/a"), file("config/b"))
	for _, tt := range []struct {
		members int
		bytes   int64
		want    error
	}{{3, 2, nil}, {2, 2, ErrTooLarge}, {3, 1, ErrTooLarge}} {
		_, err := unpack(bytes.NewReader(data), target{Dirs: map[string]string{"config": t.TempDir()}, MaxMembers: tt.members, MaxBytes: tt.bytes})
		if !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// Whatever an archive holds, what comes out lies in the folder for it, and is files and folders.
func FuzzExtract(f *testing.F) {
	f.Add(unzipped(f, archive(f, file(markName), folder("config/"), file("config/a"), folder("config/b/"), file("config/b/c"))))
	f.Add(unzipped(f, archive(f, file(markName), folder("config/"), tar.Header{Typeflag: tar.TypeSymlink, Name: "config/a", Linkname: "/etc"}, file("config/a/b"))))
	f.Add(unzipped(f, archive(f, file(markName), folder("config/"), file("config/../../x"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		around := t.TempDir()
		dir := filepath.Join(around, "inner")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := unpack(bytes.NewReader(gzipped(string(data))), bounded(map[string]string{"config": dir}))
		if names, _ := os.ReadDir(around); len(names) != 1 {
			t.Fatalf("%v lie beside the folder, %v", names, err)
		}
		filepath.WalkDir(dir, func(name string, e fs.DirEntry, _ error) error {
			if e != nil && !e.IsDir() && !e.Type().IsRegular() {
				t.Fatalf("%s is %v", name, e.Type())
			}
			return nil
		})
	})
}

func unzipped(f *testing.F, data []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}
