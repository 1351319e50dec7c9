package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// between takes so many arguments at least and at most.
func between(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("an argument of %s is missing", c.Name())
		case len(args) > most:
			return fmt.Errorf("%q is one argument too many", args[most])
		}
		return nil
	}
}

// knownVerb refuses to explain what there is not.
func knownVerb(root *cobra.Command) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		_, _, err := root.Find(args)
		return err
	}
}

// badFlag keeps to itself which function of Go did not like a flag's value.
func badFlag(_ *cobra.Command, err error) error {
	if bad, ok := errors.AsType[interface {
		error
		GetValue() string
		Unwrap() error
	}](err); ok {
		return errors.New(strings.TrimSuffix(err.Error(), ": "+bad.Unwrap().Error()))
	}
	return err
}

// misused says what is wrong with a call in a few lines: all of the help would push the reason off the
// screen.
func (t *tool) misused(c *cobra.Command, err error) {
	usage, help := c.UseLine(), c.CommandPath()+" --help"
	if !c.HasParent() || c.Name() == "help" {
		usage, help = c.Root().Name()+" VERB [flags]", c.Root().Name()+" help"
	}
	fmt.Fprintf(t.err, "relay-util: %s\n\nUsage: %s\nMore:  %s\n", strings.TrimSpace(err.Error()), usage, help)
}
