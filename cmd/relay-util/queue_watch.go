package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"relayd/control"
)

const (
	watchEvery    = 2 * time.Second
	watchGroups   = 10
	watchMessages = 10 // unless --limit says another number
)

// watch shows the queue on the terminal until Ctrl-C.
func (t *tool) watch(ctx context.Context, client *control.Client, l *listing) error {
	if !isTerminal(t.stdout) {
		return errors.New("--watch needs a terminal; without it queue-list prints once")
	}
	if l.limit == 0 {
		l.limit = watchMessages
	}
	picture, err := t.picture(ctx, client, l)
	if err != nil {
		return err
	}
	fmt.Fprint(t.out, "\x1b[2J")
	err = interruptible(ctx, func(ctx context.Context) error {
		for {
			if err := t.draw(picture); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(watchEvery):
			}
			if picture, err = t.picture(ctx, client, l); err != nil {
				picture = t.red(oneLine(err.Error())) + "\n"
			}
		}
	})
	if errors.Is(err, errInterrupted) {
		return nil
	}
	return err
}

// draw shows a picture in place of the last one, as much of it as there is room for.
func (t *tool) draw(picture string) error {
	width, height, err := term.GetSize(int(t.stdout.(*os.File).Fd()))
	if err != nil {
		return err
	}
	if width == 0 || height == 0 { // it does not know itself
		width, height = 80, 24
	}
	fmt.Fprint(t.out, "\x1b[H")
	for i, line := range strings.Split(strings.TrimSuffix(picture, "\n"), "\n") {
		if i == height-1 {
			break
		}
		fmt.Fprintf(t.out, "%s\x1b[K\r\n", cut(line, width))
	}
	fmt.Fprint(t.out, "\x1b[J")
	return t.out.Flush()
}

// cut cuts a line to a width. One with a colour in it is left alone.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width || strings.Contains(line, "\x1b") {
		return line
	}
	return string([]rune(line)[:width])
}

// picture is the state of the queue in some lines: totals, groups and the oldest messages.
func (t *tool) picture(ctx context.Context, client *control.Client, l *listing) (string, error) {
	status, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	groups, err := client.Groups(ctx, watchGroups)
	if err != nil {
		return "", err
	}
	var messages []control.Message
	err = client.List(ctx, l.Filter, int(l.limit), func(m control.Message) bool {
		messages = append(messages, m)
		return true
	})
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if !status.Health.OK() {
		fmt.Fprintf(&b, "%s\n", t.red("the queue is not well: see `relay-util status`"))
	}
	q := status.Queue
	fmt.Fprintf(&b, "%s  %s waiting, %d held, %s", t.now().Format(time.TimeOnly), count(q.Messages-q.Held, "message"), q.Held, size(q.Bytes))
	if !q.Oldest.IsZero() {
		fmt.Fprintf(&b, ", the oldest received %s", t.when(q.Oldest))
	}
	fmt.Fprintf(&b, "\nattempts: %s\n", attemptsLine(q.Attempts))
	t.drawGroups(&b, groups)
	if len(messages) > 0 {
		tw := tableOn(&b)
		fmt.Fprintln(tw, "\n"+messageColumns)
		for _, m := range messages {
			fmt.Fprintln(tw, t.messageRow(m))
		}
		tw.Flush()
	}
	return b.String(), nil
}

func (t *tool) drawGroups(b *bytes.Buffer, groups []control.Group) {
	if len(groups) == 0 {
		return
	}
	tw := tableOn(b)
	fmt.Fprintln(tw, "\nGROUP\tATTEMPTS\tAT MOST\tMORE WAIT")
	for _, g := range groups {
		waiting := "-"
		if !g.WaitingSince.IsZero() {
			waiting = "since " + roughly(t.now().Sub(g.WaitingSince))
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\n", oneLine(g.Name), g.Used, g.Window, waiting)
	}
	tw.Flush()
}
