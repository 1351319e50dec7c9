package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/message"
	"relayd/sendmail"
)

// A sysexit ends a run with a code of sysexits.h; what there is to say has been said.
type sysexit int

const (
	exUsage       sysexit = 64
	exData        sysexit = 65
	exNoUser      sysexit = 67
	exUnavailable sysexit = 69
	exTempfail    sysexit = 75
	exNoPerm      sysexit = 77
)

func (e sysexit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func (t *tool) sendmail() *cobra.Command {
	c := &cobra.Command{
		Use:   "sendmail [OPTION...] [RECIPIENT...]",
		Short: "Take a message of a program of this machine, as the command of that name does on every Unix.",
		Long: "Take a message of a program of this machine, as the command of that name does on every Unix.\n" +
			"Called as \"sendmail\", by a link, relay-util does this and nothing else. [sendmail] in relayd.toml says who may send\n" +
			"and as whom. While relayd is down the message is kept for it in a drop folder.\n\n" +
			"  -t        the recipients stand in To, Cc and Bcc\n" +
			"  -f ADDR   the sender\n" +
			"  -F NAME   the sender's name, where the message has no From\n" +
			"  -i, -oi   a line with a single dot does not end the message\n" +
			"  -N WHEN   ask for DSNs: never, or some of success,failure,delay\n" +
			"  -R WHAT   how much a DSN returns: full or hdrs\n" +
			"  -V ID     an envelope ID that DSNs repeat\n" +
			"  -v        say what the relay answers\n" +
			"  -bp       list the queue\n" +
			"  -C FILE   the settings\n\n" +
			"Exits as sysexits.h says: 64 wrong usage, 65 wrong message, 67 no such recipient, 69 not set up, 75 try again, 77 not permitted.",
		Example:            "ln -s /usr/local/bin/relay-util /usr/sbin/sendmail\n  echo it works | sendmail root",
		DisableFlagParsing: true,
	}
	return t.verb(c, cobra.ArbitraryArgs, func(ctx context.Context, args []string) error {
		if slices.Contains(args, "--help") {
			return c.Help()
		}
		call, err := sendmail.ParseArgs(args)
		if err != nil {
			return t.sysexit(exUsage, err.Error())
		}
		if call.Settings != "" {
			t.configFile = call.Settings
		}
		if call.ListQueue {
			list := t.queueList()
			list.SetArgs([]string{})
			list.SilenceErrors, list.SilenceUsage = true, true
			return list.ExecuteContext(ctx)
		}
		return t.handOver(ctx, call)
	})
}

// handOver reads the message and gives it to the relay.
func (t *tool) handOver(ctx context.Context, call *sendmail.Call) error {
	stateDir, limit := t.whereTo()
	call.Options.TempDir, call.Options.Limit = os.TempDir(), limit
	m, err := sendmail.Read(t.in, &call.Request, call.Options)
	if err != nil {
		return t.unreadable(err, limit)
	}
	defer m.Close()
	answer, err := sendmail.HandOver(ctx, stateDir, &call.Request, m)
	switch {
	case errors.Is(err, sendmail.ErrOff):
		return t.sysexit(exUnavailable, err.Error())
	case err != nil:
		return t.sysexit(exTempfail, err.Error())
	case answer.Code != 250:
		return t.sysexit(answerCode(answer), answer.String())
	case call.Verbose:
		t.say("%s", oneLine(answer.Text))
	}
	return nil
}

// whereTo is what is needed of the settings. Most users cannot read them.
func (t *tool) whereTo() (stateDir string, limit int64) {
	conf, err := t.settings()
	if err != nil {
		conf = config.Default()
		if dir := config.StateDir(t.configFile); dir != "" {
			conf.StateDir = dir
		}
	}
	return conf.StateDir, int64(conf.Limits.MessageSize)
}

func (t *tool) unreadable(err error, limit int64) error {
	_, storage := errors.AsType[*message.StorageError](err)
	switch {
	case errors.Is(err, sendmail.ErrNoRecipients):
		return t.sysexit(exData, err.Error())
	case errors.Is(err, message.ErrTooLarge):
		return t.sysexit(exData, fmt.Sprintf("the message is larger than the %s that are taken", size(limit)))
	case errors.Is(err, message.ErrHeaderTooLarge), errors.Is(err, message.ErrTooManyFields), errors.Is(err, message.ErrLoneDot):
		return t.sysexit(exData, err.Error())
	case storage:
		return t.sysexit(exTempfail, err.Error())
	}
	return t.sysexit(exTempfail, "reading the message: "+err.Error())
}

// answerCode is the code of sysexits.h for a refusal, by its enhanced status code (RFC 3463).
func answerCode(a sendmail.Answer) sysexit {
	switch {
	case a.Code < 500:
		return exTempfail
	case strings.HasPrefix(a.Enhanced, "5.7."):
		return exNoPerm
	case strings.HasPrefix(a.Enhanced, "5.1."):
		return exNoUser
	case strings.HasPrefix(a.Enhanced, "5.5."):
		return exUsage
	}
	return exData
}

func (t *tool) sysexit(code sysexit, why string) error {
	fmt.Fprintf(t.err, "sendmail: %s\n", oneLine(why))
	return code
}
