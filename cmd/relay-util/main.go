// Command relay-util is the tool beside relayd: it edits the files of the hosted domains, says
// what they mean, and talks to a running daemon about its queue.
//
// It exits with 0 for yes or done, 1 for no or failed, and 2 for wrong usage. What was asked for
// goes to standard output, everything else to standard error.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"relayd/control"
	"relayd/internal/release"
	"relayd/problem"
)

func main() {
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "sendmail" {
		args = append([]string{"sendmail"}, args...)
	}
	os.Exit(run(context.Background(), args, streams{os.Stdin, os.Stdout, os.Stderr}))
}

// streams are what a run reads and writes. Questions are asked only where in is a terminal.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// A tool is one run of relay-util.
type tool struct {
	in         io.Reader
	out        *bufio.Writer // in front of stdout
	stdout     io.Writer
	err        io.Writer
	now        func() time.Time
	configFile string
	json       bool
}

// run does what the arguments say and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	t := &tool{in: s.in, out: bufio.NewWriter(s.out), stdout: s.out, err: s.err, now: time.Now}
	root := t.command()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(t.out)
	root.SetErr(s.err)
	cmd, err := root.ExecuteContextC(ctx)
	if failed := t.out.Flush(); err == nil && failed != nil {
		err = ran{failed}
	}
	return t.exitCode(cmd, err)
}

// command is the tree of verbs.
func (t *tool) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "relay-util",
		Short:         "Edit the domains, users, aliases and keys of relayd, and look after its queue.",
		Version:       release.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(*cobra.Command, []string) error { return errors.New("a verb is missing") },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(badFlag)
	root.PersistentFlags().StringVarP(&t.configFile, "config", "c", "/etc/relayd/relayd.toml", "the settings `FILE`; domains/ lies beside it")
	root.PersistentFlags().BoolVar(&t.json, "json", false, "print JSON")
	for _, group := range []struct {
		title string
		verbs []*cobra.Command
	}{
		{"Users:", t.userVerbs()},
		{"Aliases:", t.aliasVerbs()},
		{"Setting up:", t.setupVerbs()},
		{"Domains:", t.domainVerbs()},
		{"DKIM:", t.dkimVerbs()},
		{"DNS and the world:", t.doctorVerbs()},
		{"Queue:", t.queueVerbs()},
		{"Mail:", t.mailVerbs()},
		{"Moving:", t.movingVerbs()},
		{"Daemon:", t.daemonVerbs()},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, verb := range group.verbs {
			verb.GroupID = group.title
			root.AddCommand(verb)
		}
	}
	root.AddCommand(t.completion(root), t.manual(root))
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = knownVerb(root)
	}
	return root
}

// verb finishes a verb: f does it, with arguments that args has found right.
func (t *tool) verb(c *cobra.Command, args cobra.PositionalArgs, f func(ctx context.Context, args []string) error) *cobra.Command {
	c.Args = args
	c.Example = "  " + c.Example
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f(cmd.Context(), args); err != nil {
			return ran{err}
		}
		return nil
	}
	return c
}

func (t *tool) completion(root *cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print a script that makes the shell complete verbs and flags.",
		Example:   "relay-util completion bash >/etc/bash_completion.d/relay-util",
		ValidArgs: []string{"bash", "zsh", "fish"},
	}
	return t.verb(c, cobra.MatchAll(between(1, 1), cobra.OnlyValidArgs), func(_ context.Context, args []string) error {
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(t.out, true)
		case "zsh":
			return root.GenZshCompletion(t.out)
		}
		return root.GenFishCompletion(t.out, true)
	})
}

// ran marks the error of a verb that was run. All other errors are of wrong usage.
type ran struct{ error }

func (r ran) Unwrap() error { return r.error }

var (
	// errNo ends a verb whose answer is no; there is nothing more to say.
	errNo = errors.New("no")
	// errNoTerminal is in an error when a question cannot be asked.
	errNoTerminal = errors.New("there is no terminal to ask on")
)

// exitCode says on standard error what went wrong.
func (t *tool) exitCode(cmd *cobra.Command, err error) int {
	verb, ok := errors.AsType[ran](err)
	if code, ok := errors.AsType[sysexit](err); ok {
		return int(code)
	}
	switch {
	case err == nil:
		return 0
	case !ok:
		t.misused(cmd, err)
		return 2
	case errors.Is(err, errNo):
		return 1
	}
	t.complain(verb.error)
	if errors.Is(err, errNoTerminal) {
		return 2
	}
	return 1
}

// complain prints problems of files as they are, and another error with what can be done.
func (t *tool) complain(err error) {
	if list, ok := err.(problem.List); ok {
		fmt.Fprintln(t.err, list)
		if slices.ContainsFunc(list, closed) {
			fmt.Fprintln(t.err, "relay-util: not all files may be read; try sudo")
		}
		return
	}
	hint := ""
	switch {
	case errors.Is(err, control.ErrNotRunning):
		hint = "; start it with `systemctl start relayd`"
	case errors.Is(err, fs.ErrPermission):
		hint = "; try sudo"
	}
	fmt.Fprintf(t.err, "relay-util: %v%s\n", err, hint)
}

// closed reports whether the file that a problem is about may not be read.
func closed(p problem.Problem) bool {
	f, err := os.Open(p.File)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, fs.ErrPermission)
}

// warn prints what is worth a look although the verb has done its work.
func (t *tool) warn(format string, args ...any) {
	fmt.Fprintf(t.err, "relay-util: warning: "+format+"\n", args...)
}

// say prints a line of the answer.
func (t *tool) say(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

// did says that something was done to what is named: in words, or as an object with its name.
func (t *tool) did(kind, name, words string) error {
	if t.json {
		return t.printJSON(map[string]string{kind: name})
	}
	t.say("%s", words)
	return nil
}

// printJSON prints v for programs.
func (t *tool) printJSON(v any) error {
	enc := json.NewEncoder(t.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
