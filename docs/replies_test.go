package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryReplyIsExplained finds every reply in the sources. replies.md must have a line of it, and
// no line of a reply that is not given any more.
func TestEveryReplyIsExplained(t *testing.T) {
	given := map[string]string{} // where it is
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testnet" || d.Name() == "sink") {
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
	for _, row := range regexp.MustCompile("(?m)^\\| `([2-5][0-9][0-9].*?)` \\| .+ \\|$").FindAllStringSubmatch(read(t, "replies.md"), -1) {
		explained[row[1]] = true
		if given[row[1]] == "" {
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
			if call, ok := n.(*ast.CallExpr); ok && makesReply(call, file.Name.Name) && len(call.Args) >= 3 {
				if text, ok := wording(call.Args, known); ok {
					given[text] = strings.TrimPrefix(set.Position(call.Pos()).String(), "../")
				}
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
		return ok && from.Name == "reply" && f.Sel.Name == "New"
	case *ast.Ident:
		return pkg == "reply" && f.Name == "New"
	}
	return false
}

var verb = regexp.MustCompile(`%(\[\d+\])?[-+#.0-9]*[a-zA-Z]`)

// wording is a reply as it stands in the table. It is not ok for one whose code is another server's.
func wording(args []ast.Expr, known map[string]string) (string, bool) {
	code, ok := literal(args[0], known)
	if !ok {
		return "", false
	}
	enhanced, _ := literal(args[1], known)
	format, ok := literal(args[2], known)
	if !ok {
		format = "…"
	}
	text := verb.ReplaceAllString(strings.ReplaceAll(format, "%%", "%"), "…")
	return strings.Join(strings.Fields(code+" "+enhanced+" "+strings.ReplaceAll(text, "`", "'")), " "), true
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
	case *ast.BinaryExpr:
		left, ok := literal(e.X, known)
		right, also := literal(e.Y, known)
		return left + right, ok && also && e.Op == token.ADD
	}
	return "", false
}
