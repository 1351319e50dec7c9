// Command relayd is the mail relay: it takes mail from its users for the world, and mail from the
// world for the hosted domains, which it forwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"relayd/config"
	"relayd/internal/demo"
	"relayd/internal/release"
	"relayd/logs"
	"relayd/queue"
)

// Exit codes: 78 is EX_CONFIG of sysexits.h, which the systemd unit does not restart on. It is also
// that of a relayd that is older than the queue.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("relayd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("c", "/etc/relayd/relayd.toml", "the configuration `file`; domains/ and certs/ are beside it")
	check := flags.Bool("check", false, "read everything, print each problem as FILE:LINE: reason, and exit with 0 or 78")
	playground := flags.Bool("demo", false, "run a playground on 127.0.0.1 with nothing installed")
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "relayd: %q is not known; see relayd -help\n", flags.Arg(0))
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case *showVersion:
		fmt.Fprintln(stdout, "relayd", version())
		return exitOK
	case *playground:
		return report(stderr, demo.Run(ctx, stdout, func(ctx context.Context, c *config.Config, log *slog.Logger) (demo.Daemon, error) {
			return start(ctx, c, log)
		}))
	case *check:
		return checkAll(*file, stdout)
	}
	defer carryBallast()()
	return serve(ctx, *file, stderr)
}

func serve(ctx context.Context, file string, stderr io.Writer) int {
	conf, err := config.Load(file)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitConfig
	}
	d, err := start(ctx, conf, newLogger(conf.Log, stderr))
	if code := report(stderr, err); errors.Is(err, queue.ErrNewerStore) {
		return exitConfig // starting again does not make it older
	} else if err != nil {
		return code
	}
	return report(stderr, d.Wait())
}

func report(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintln(stderr, "relayd:", err)
		return exitFailed
	}
	return exitOK
}

// checkAll reads every file as the daemon would, without its last good copies.
func checkAll(file string, stdout io.Writer) int {
	conf, err := config.Load(file)
	if err != nil {
		fmt.Fprintln(stdout, err)
		for _, p := range checkDomains(config.At(file)) {
			fmt.Fprintln(stdout, p)
		}
		return exitConfig
	}
	problems, warnings := checkFiles(conf)
	for _, w := range warnings {
		fmt.Fprintln(stdout, "warning:", w)
	}
	for _, p := range problems {
		fmt.Fprintln(stdout, p)
	}
	if len(problems) > 0 {
		return exitConfig
	}
	return exitOK
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.Level)) // config has checked it
	out := logs.NewText(w, level)
	if c.Format == "json" {
		out = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	}
	return slog.New(logs.New(out, logs.Privacy(c.Privacy)))
}

func version() string { return release.String() }
