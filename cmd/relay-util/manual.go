package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"relayd/internal/manual"
	"relayd/internal/release"
)

// manual is for those who build packages, so help does not list it.
func (t *tool) manual(root *cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   "manual relay-util|relayd|relayd.toml|domain.toml",
		Short: "Print a manual page in roff.",
		Long: "Print a manual page in roff. That of relayd is made from what relayd -help prints, those of\n" +
			"settings from their explained files in etc/, on standard input.",
		Example:   "relay-util manual relayd.toml <etc/relayd.toml >relayd.toml.5",
		ValidArgs: []string{"relay-util", "relayd", "relayd.toml", "domain.toml"},
		Hidden:    true,
	}
	return t.verb(c, cobra.MatchAll(between(1, 1), cobra.OnlyValidArgs), func(_ context.Context, args []string) error {
		if args[0] == "relay-util" {
			return manual.Tool(t.out, root, release.String())
		}
		source, err := io.ReadAll(io.LimitReader(t.in, 1<<20))
		switch {
		case err != nil:
			return err
		case args[0] == "relayd":
			return manual.Server(t.out, string(source), release.String())
		}
		return manual.Settings(t.out, args[0], string(source), release.String())
	})
}
