package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// replyRow matches a line of a table in replies.md. The code of a reply that is another server's is xxx.
var replyRow = regexp.MustCompile("(?m)^\\| `((?:[2-5][0-9][0-9]|xxx) .*?)` \\| .+ \\|$")

// TestEveryReplyIsExplained finds every reply in the sources. replies.md must have a line of it, and
// no line of a reply that is not given any more. Of the replies of the SMTP library, most of which are never
// reached, it has what it likes.
func TestEveryReplyIsExplained(t *testing.T) {
	given := map[string]string{} // where it is
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if notRelayd := path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bench" || d.Name() == "internal"); err == nil && d.IsDir() && notRelayd {
			return fs.SkipDir
		}
		if err != nil || !d.IsDir() {
			return err
		}
		return repliesOf(path, given)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(given) < 100 {
		t.Errorf("only %d replies were found", len(given))
	}
	explained := map[string]bool{}
	library := map[string]string{}
	if err := repliesOf(folderOf(t, "github.com/emersion/go-smtp"), library); err != nil {
		t.Fatal(err)
	}
	for _, row := range replyRow.FindAllStringSubmatch(read(t, "replies.md"), -1) {
		explained[row[1]] = true
		if given[row[1]] == "" && library[row[1]] == "" {
			t.Errorf("replies.md: nobody gives %q", row[1])
		}
	}
	var missing []string
	for reply, where := range given {
		if !explained[reply] {
			missing = append(missing, fmt.Sprintf("replies.md: needs a line of %s: | `%s` | WHEN, AND WHAT TO DO |", where, reply))
		}
	}
	slices.Sort(missing)
	for _, line := range missing {
		t.Error(line)
	}
}

// folderOf is where the sources of a module are.
func folderOf(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// wireReply matches a reply that is written as it goes over the wire.
var wireReply = regexp.MustCompile(`^[2-5][0-9][0-9] [^\r]+\r\n$`)

// repliesOf adds the replies that a package makes.
func repliesOf(dir string, given map[string]string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	var files []*ast.File
	known := map[string]string{} // constants and variables of the package
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			return err
		}
		files = append(files, file)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == len(spec.Names) {
				for i, name := range spec.Names {
					if text, ok := literal(spec.Values[i], known); ok {
						known[name.Name] = text
					}
				}
			}
			return true
		})
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			text := ""
			switch n := n.(type) {
			case *ast.CallExpr:
				if makesReply(n, file.Name.Name) && len(n.Args) >= 3 {
					text = wording(n.Args, known)
				}
			case *ast.BasicLit:
				if line, _ := literal(n, nil); wireReply.MatchString(line) {
					text = strings.TrimSpace(line)
				}
			}
			if text != "" {
				given[text] = strings.TrimPrefix(set.Position(n.Pos()).String(), "../")
			}
			return true
		})
	}
	return nil
}

func makesReply(call *ast.CallExpr, pkg string) bool {
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		from, ok := f.X.(*ast.Ident)
		return ok && (from.Name == "reply" && f.Sel.Name == "New" || pkg == "smtp" && f.Sel.Name == "writeResponse")
	case *ast.Ident:
		return pkg == "reply" && f.Name == "New"
	}
	return false
}

var verb = regexp.MustCompile(`%(\[\d+\])?[-+#.0-9]*[a-zA-Z]`)

// wording is a reply as it stands in the table; "" is one of which neither code nor words stand here.
func wording(args []ast.Expr, known map[string]string) string {
	code, isOurs := literal(args[0], known)
	format, isSaid := literal(args[2], known)
	switch {
	case !isOurs && !isSaid:
		return ""
	case !isOurs:
		code = "xxx"
	case !isSaid:
		format = "…"
	}
	enhanced, _ := literal(args[1], known)
	text := verb.ReplaceAllString(strings.ReplaceAll(format, "%%", "%"), "…")
	return strings.Join(strings.Fields(code+" "+enhanced+" "+strings.ReplaceAll(text, "`", "'")), " ")
}

// literal is the value of a string or number that stands in the sources.
func literal(e ast.Expr, known map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return text, true
		}
		return e.Value, true
	case *ast.Ident:
		text, ok := known[e.Name]
		return text, ok
	case *ast.CallExpr: // fmt.Sprintf in the library
		if len(e.Args) == 0 {
			return "", false
		}
		return literal(e.Args[0], known)
	case *ast.CompositeLit: // an enhanced code in the library
		var parts []string
		for _, part := range e.Elts {
			n, ok := literal(part, known)
			if !ok { // "none" is made of -1
				return "", false
			}
			parts = append(parts, n)
		}
		return strings.Join(parts, "."), len(parts) == 3
	case *ast.BinaryExpr:
		left, ok := literal(e.X, known)
		right, also := literal(e.Y, known)
		return left + right, ok && also && e.Op == token.ADD
	}
	return "", false
}
