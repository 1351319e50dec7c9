package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"relayd/users"
)

// maxPasswordLine bounds what --password-stdin reads, in bytes: more than any password may have,
// so that one that is too long is told so.
const maxPasswordLine = 4 << 10

// A passwordSource is where a password comes from: the flags, or else a prompt.
type passwordSource struct {
	cmd             *cobra.Command
	value           string
	stdin, generate bool
}

// passwordFlags gives a verb the flags for a password. A new one can also be made, and is asked
// for twice.
func (t *tool) passwordFlags(c *cobra.Command, isNew bool) *passwordSource {
	s := &passwordSource{cmd: c}
	c.Flags().StringVar(&s.value, "password", "", "the password; others on this machine can see it in the list of processes")
	c.Flags().BoolVar(&s.stdin, "password-stdin", false, "read the password from the first line of standard input")
	c.MarkFlagsMutuallyExclusive("password", "password-stdin")
	if isNew {
		c.Flags().BoolVar(&s.generate, "generate", false, "make a password and print it, once")
		c.MarkFlagsMutuallyExclusive("password", "password-stdin", "generate")
	}
	return s
}

// password gets the password, from a prompt if no flag says otherwise.
func (t *tool) password(s *passwordSource, prompt string, twice bool) (string, error) {
	switch {
	case s.generate:
		return users.Generate(), nil
	case s.cmd.Flags().Changed("password"):
		return s.value, nil
	case s.stdin:
		line, err := bufio.NewReader(io.LimitReader(t.in, maxPasswordLine)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	first, err := t.secret(prompt + ": ")
	if err != nil || !twice {
		return first, err
	}
	again, err := t.secret("the same once more: ")
	if err == nil && again != first {
		err = errors.New("the two passwords are not the same; nothing was changed, try again")
	}
	return first, err
}

// secret asks for a line that is not shown.
func (t *tool) secret(prompt string) (string, error) {
	f, ok := t.terminal()
	if !ok {
		return "", fmt.Errorf("%w for the password; give it with --password-stdin", errNoTerminal)
	}
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return "", err
	}
	// Whoever gives up here must get a terminal back that shows what is typed.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	fmt.Fprint(t.err, prompt)
	type answer struct {
		line []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() { // after an interrupt it ends with the process
		line, err := term.ReadPassword(int(f.Fd()))
		answered <- answer{line, err}
	}()
	select {
	case a := <-answered:
		fmt.Fprintln(t.err)
		if errors.Is(a.err, io.EOF) {
			a.err = errors.New("no password was typed")
		}
		return string(a.line), a.err
	case <-interrupted:
		term.Restore(int(f.Fd()), before)
		fmt.Fprintln(t.err)
		return "", errors.New("interrupted; nothing was changed")
	}
}

// canAsk reports why a question cannot be asked.
func (t *tool) canAsk() error {
	if _, ok := t.terminal(); !ok {
		return fmt.Errorf("%w whether this is meant; say so with --yes", errNoTerminal)
	}
	return nil
}

// confirm asks a question that only "yes" answers with yes.
func (t *tool) confirm(question string) error {
	if err := t.canAsk(); err != nil {
		return err
	}
	fmt.Fprintf(t.err, "%s Type yes to go on: ", question)
	line, err := bufio.NewReader(t.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "yes" && answer != "y" {
		return errors.New("nothing was changed")
	}
	return nil
}

// terminal is standard input if somebody sits there.
func (t *tool) terminal() (*os.File, bool) {
	f, ok := t.in.(*os.File)
	return f, ok && isTerminal(f)
}

// isTerminal reports whether somebody sees what is written to w, or types what is read from it.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// red makes lines red on standard output where that is a terminal which shows colours to somebody
// who wants them (no-color.org).
func (t *tool) red(lines string) string {
	if !isTerminal(t.stdout) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return lines
	}
	return "\x1b[1;31m" + lines + "\x1b[0m"
}
