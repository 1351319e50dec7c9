package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/address"
	"relayd/control"
	"relayd/follow"
	"relayd/message"
	"relayd/sendmail"
)

func (t *tool) mailVerbs() []*cobra.Command { return []*cobra.Command{t.send(), t.sendmail()} }

// A sending is what `send` is asked for.
type sending struct {
	control.Sending
	subject, body string
	wait          time.Duration
}

func (t *tool) send() *cobra.Command {
	var s sending
	c := &cobra.Command{
		Use:   "send --from ADDR --to ADDR [FILE]",
		Short: "Send a message through the running relay, and show each step of it until its end.",
		Long: "Send a message through the running relay, and show each step of it until its end.\n" +
			"The message is FILE with its header, or made of --subject and --body. It is taken as if the user --from had\n" +
			"logged in and submitted it: its From is judged and it is signed. No password is needed.\n" +
			"Exits with 0 when every recipient's server has it, and with 1 when one refuses it or has not got it after --wait.",
		Example: "relay-util send --from app@example.com --to you@gmail.com",
	}
	flags := c.Flags()
	flags.StringVar(&s.From, "from", "", "the sender, an `ADDR` in a hosted domain")
	flags.StringArrayVar(&s.To, "to", nil, "a recipient; there can be several")
	flags.StringVar(&s.subject, "subject", "Test of relayd", "the subject, where there is no FILE")
	flags.StringVar(&s.body, "body", "", "the text, where there is no FILE; - reads standard input")
	flags.DurationVar(&s.wait, "wait", time.Minute, "how long to look on")
	c.MarkFlagRequired("from")
	c.MarkFlagRequired("to")
	c.PreRunE = func(*cobra.Command, []string) error {
		if s.wait <= 0 {
			return fmt.Errorf("--wait: %v is no time to look on: write 30s or 5m", s.wait)
		}
		return nil
	}
	return t.ask(c, between(0, 1), func(ctx context.Context, client *control.Client, args []string) error {
		msg, closer, err := t.messageToSend(s, args)
		if err != nil {
			return err
		}
		defer closer()
		return t.follow(ctx, client, s, sendmail.Lines(msg, false))
	})
}

// messageToSend is the file, or the message that the flags make.
func (t *tool) messageToSend(s sending, args []string) (msg io.Reader, closer func(), err error) {
	if len(args) > 0 {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, nil, err
		}
		return f, func() { f.Close() }, nil
	}
	header := "From: <" + s.From + ">\nTo: <" + strings.Join(s.To, ">, <") + ">\n"
	for _, a := range append([]string{s.From}, s.To...) {
		if _, err := address.Parse(a); err != nil {
			return nil, nil, err
		}
	}
	header += "Subject: " + mime.QEncoding.Encode("utf-8", message.OneLine(s.subject, 900)) + "\n\n"
	var body io.Reader = strings.NewReader(s.body + "\n")
	switch s.body {
	case "-":
		body = t.in
	case "":
		body = strings.NewReader("This message was sent with `relay-util send` to see that mail arrives.\n")
	}
	return io.MultiReader(strings.NewReader(header), body), func() {}, nil
}

// A sentState is what `send --json` prints in the end.
type sentState struct {
	ID         string             `json:"id"`
	Signatures []follow.Signature `json:"signatures"`
	Seconds    float64            `json:"seconds"`
	Recipients []follow.Event     `json:"recipients"` // the last outcome of each, where there is one
	Finished   bool               `json:"finished"`   // all have an outcome that stands
}

// follow sends and shows what becomes of it.
func (t *tool) follow(ctx context.Context, client *control.Client, s sending, msg io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	began := t.now()
	state := sentState{Signatures: []follow.Signature{}, Recipients: []follow.Event{}}
	refused := false
	err := interruptible(ctx, func(ctx context.Context) error {
		return client.Send(ctx, s.Sending, msg, func(e follow.Event) bool {
			state.note(e)
			refused = refused || e.What == follow.Failed
			if !t.json {
				t.printStep(e, t.now().Sub(began))
				t.out.Flush()
			}
			return true
		})
	})
	if state.ID == "" && err != nil {
		return err
	}
	state.Seconds = t.now().Sub(began).Seconds()
	if t.json {
		if err := t.printJSON(state); err != nil {
			return err
		}
	} else if !state.Finished {
		t.say("relayd goes on trying; `relay-util queue-show %s` shows how it fares", state.ID)
	}
	switch {
	case !state.Finished && ctx.Err() == nil && err != nil && !errors.Is(err, errInterrupted):
		return err
	case refused || !state.Finished:
		return errNo
	}
	return nil
}

// note keeps what is to be told in the end.
func (s *sentState) note(e follow.Event) {
	switch {
	case e.What == follow.Queued:
		s.ID = e.ID
		s.Signatures = append(s.Signatures, e.Signatures...)
	case e.What.IsOutcome():
		s.Finished = e.Left == 0
		for i := range s.Recipients {
			if s.Recipients[i].Recipient == e.Recipient {
				s.Recipients[i] = e
				return
			}
		}
		s.Recipients = append(s.Recipients, e)
	}
}

// printStep prints one step as a sentence, with the time since the beginning.
func (t *tool) printStep(e follow.Event, since time.Duration) {
	say := func(format string, args ...any) {
		t.say("%6.2fs  %s", since.Seconds(), oneLine(fmt.Sprintf(format, args...)))
	}
	switch e.What {
	case follow.Queued:
		say("queued as %s", e.ID)
		for _, sig := range e.Signatures {
			say("signed for %s with the key %s (%s)", sig.Domain, sig.Selector, sig.Algorithm)
		}
		if len(e.Signatures) == 0 {
			say("not signed: the domain has no DKIM key; `relay-util dkim-keygen` makes one")
		}
	case follow.Connected:
		say("connected to %s over %s", e.Host, e.Family)
	case follow.Kept:
		say("a connection to %s over %s is still open from before, with %s", e.Host, e.Family, tlsWords(e))
	case follow.Ready:
		say("ready for mail, with %s", tlsWords(e))
	case follow.Unreachable:
		say("no mail goes to %s now: %s", e.Host, e.Reply)
	default:
		say("%s", outcomeWords(t, e))
	}
}

func tlsWords(e follow.Event) string {
	switch {
	case e.TLS == "":
		return "no TLS"
	case e.Verified == "":
		return e.TLS + " (its certificate was not asked for)"
	}
	return e.TLS + " (its certificate was verified by " + e.Verified + ")"
}

func outcomeWords(t *tool, e follow.Event) string {
	by := ""
	if e.Host != "" {
		by = " by " + e.Host
	}
	switch e.What {
	case follow.Delivered:
		return fmt.Sprintf("%s: delivered%s: %s", e.Recipient, by, e.Reply)
	case follow.Failed:
		return fmt.Sprintf("%s: refused%s: %s", e.Recipient, by, e.Reply)
	case follow.Held:
		return fmt.Sprintf("%s: held%s until somebody looks: %s", e.Recipient, by, e.Reply)
	case follow.Waits:
		return fmt.Sprintf("%s: waits for a limit of its destination, and is tried %s", e.Recipient, t.when(e.Next))
	}
	return fmt.Sprintf("%s: put off%s: %s; the next attempt is %s", e.Recipient, by, e.Reply, t.when(e.Next))
}
