package placing

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStepsAreDoneAllOrNone(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name, steps, want string
		err               error
	}{
		{"all", "a b c", "+a +b +c", nil},
		{"the last fails", "a b !", "+a +b -b -a", broken},
		{"the first fails", "! a b", "", broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var done []string
			var steps []Step
			for name := range strings.FieldsSeq(tt.steps) {
				steps = append(steps, Step{
					func() error {
						if name == "!" {
							return broken
						}
						done = append(done, "+"+name)
						return nil
					},
					func() error { done = append(done, "-"+name); return nil },
				})
			}
			if err := Run(steps); !errors.Is(err, tt.err) || strings.Join(done, " ") != tt.want {
				t.Errorf("%v, %v", done, err)
			}
		})
	}
}

func TestAFolderTakesThePlaceOfAnEmptyOne(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := errors.Join(os.MkdirAll(from+"/x", 0o755), os.Mkdir(to, 0o755)); err != nil {
		t.Fatal(err)
	}
	s := Rename(from, to)
	if err := s.Do(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Undo(), os.MkdirAll(to+"/y", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a folder with something in it: %v", err)
	}
}

func TestAFolderThatIsMissingIsNoWarning(t *testing.T) {
	dir := t.TempDir()
	MakeLast(func(format string, args ...any) { t.Errorf(format, args...) }, dir, dir+"/none")
}
