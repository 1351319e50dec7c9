package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// docPages are the pages of docs/ and README.md, each with its text.
func docPages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("pages %q, %v", names, err)
	}
	pages := map[string]string{}
	for _, name := range append(names, "../../README.md") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pages[name] = string(data)
	}
	return pages
}

var (
	shBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")
	// ourCommand is a command at the beginning of a line or behind another one.
	ourCommand = regexp.MustCompile(`(?m)(?:^ *|[;&|] |sudo |\./cmd/)(relay-util|relayd)( +[a-z-][^\n|;&#]*)`)
	ourFlag    = regexp.MustCompile(`\s(--?[a-z][a-z-]*)`)
)

// TestPagesNameCommandsThatExist looks at every verb and flag of every page, those too that are run
// nowhere.
func TestPagesNameCommandsThatExist(t *testing.T) {
	root := (&tool{in: strings.NewReader(""), stdout: io.Discard, err: io.Discard}).command()
	daemon := daemonFlags(t)
	found := 0
	for name, page := range docPages(t) {
		for _, m := range ourCommand.FindAllStringSubmatch(commandText(page), -1) {
			found++
			command := m[1] + m[2]
			if m[1] == "relayd" {
				for _, f := range ourFlag.FindAllStringSubmatch(m[2], -1) {
					if !slices.Contains(daemon, f[1]) {
						t.Errorf("%s: %s: relayd has no flag %s", name, command, f[1])
					}
				}
				continue
			}
			verb, problem := verbOf(root, strings.Fields(m[2]))
			if problem != "" {
				t.Errorf("%s: %s: %s", name, command, problem)
				continue
			}
			for _, f := range ourFlag.FindAllStringSubmatch(m[2], -1) {
				if !hasFlag(verb, f[1]) {
					t.Errorf("%s: %s: %s has no flag %s", name, command, verb.Name(), f[1])
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d commands were found", found)
	}
}

// commandText keeps of a page what is set as commands: blocks, indented lines and what stands in backquotes.
func commandText(page string) string {
	var out strings.Builder
	block := false
	for line := range strings.SplitSeq(page, "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			block = !block
		case block || strings.HasPrefix(line, "    "):
			out.WriteString(line + "\n")
		default:
			for i, part := range strings.Split(line, "`") {
				if i%2 == 1 {
					out.WriteString(part + "\n")
				}
			}
		}
	}
	return out.String()
}

func verbOf(root *cobra.Command, args []string) (*cobra.Command, string) {
	for i := 0; i < len(args); i++ {
		if args[i] == "-c" {
			i++
			continue
		}
		if strings.HasPrefix(args[i], "-") {
			continue
		}
		if args[i] == "help" {
			return root, ""
		}
		for _, c := range root.Commands() {
			if c.Name() == args[i] {
				return c, ""
			}
		}
		return nil, "there is no verb " + args[i]
	}
	return root, ""
}

func hasFlag(verb *cobra.Command, flag string) bool {
	if verb.DisableFlagParsing { // those of another program: its tests know them
		return true
	}
	if flag == "--help" || flag == "-h" {
		return true
	}
	if short, ok := strings.CutPrefix(flag, "--"); ok {
		return verb.Flag(short) != nil
	}
	return verb.Flags().ShorthandLookup(flag[1:]) != nil || verb.InheritedFlags().ShorthandLookup(flag[1:]) != nil
}

// daemonFlags are those of relayd, from its sources.
func daemonFlags(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("../relayd/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`\b\w+\.(?:String|Bool)(?:Var)?\((?:&?[\w.]+, )?"([a-z]+)"`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, "-"+m[1])
	}
	if !slices.Contains(names, "-check") {
		t.Fatalf("flags of relayd: %q", names)
	}
	return names
}

// pageScript runs what a page says, with the settings in etc/relayd and everything that it names by an
// absolute path in the throw-away folder.
const pageScript = `
mkdir etc/relayd etc/postfix root var
exec sh -c 'printf "hostname = \"mx.example.com\"\nstate_dir = \"%s/var\"\n[auth]\nbcrypt_cost = 4\n" $WORK >etc/relayd/relayd.toml'
exec relay-util -c etc/relayd/relayd.toml domain-add example.com --forward you@gmail.com
exec relay-util -c etc/relayd/relayd.toml user-add app@example.com --password=secret
exec sh -eux page.sh
`

// TestPagesRun runs the blocks marked sh of each page, one after the other. What needs the world is
// marked console.
func TestPagesRun(t *testing.T) {
	scripts := t.TempDir()
	for name, page := range docPages(t) {
		blocks := shBlock.FindAllStringSubmatch(page, -1)
		if len(blocks) == 0 {
			continue
		}
		var sh strings.Builder
		for _, block := range blocks {
			sh.WriteString(insideWork(block[1]))
		}
		base := strings.TrimSuffix(filepath.Base(name), ".md")
		text := pageScript + "-- page.sh --\n" + sh.String() + "-- etc/postfix/virtual --\nsales@example.com you@gmail.com\n"
		if err := os.WriteFile(filepath.Join(scripts, base+".txtar"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 scripts,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			if err := os.CopyFS(env.WorkDir+"/etc/chasquid", os.DirFS("../../moving/testdata/chasquid")); err != nil {
				return err
			}
			data, err := os.ReadFile("../../etc/gitignore")
			if err != nil {
				return err
			}
			return os.WriteFile(env.WorkDir+"/etc/gitignore", data, 0o600)
		},
	})
}

var absolute = regexp.MustCompile(`(^|[\s"'=<>])/(etc|root|var|tmp)/`)

// insideWork moves absolute paths below the folder of a script, and the settings with them.
func insideWork(commands string) string {
	commands = absolute.ReplaceAllString(commands, "$1$$WORK/$2/")
	return strings.ReplaceAll(commands, "relay-util ", "relay-util -c $WORK/etc/relayd/relayd.toml ")
}
