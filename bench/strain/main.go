// Command strain measures what it costs relayd to be misused, and what honest clients notice of it. Each
// figure stands beside its goal; it exits with 1 if one misses it.
//
//	go run ./bench/strain idle      # 10,000 connections that do nothing, in the clear and under TLS
//	go run ./bench/strain slow      # 2,000 clients that send an octet a second (-time 5m)
//	go run ./bench/strain guess     # 500 wrong passwords a second, three on each connection (-each), from many addresses
//	go run ./bench/strain large     # a message of 10 MB, and 20 of 50 MB at once
//	go run ./bench/strain bombs     # headers as large as they may be, with ten signatures
//
// All of it takes place on this machine, so the clients share its processors. idle needs 10,100 open
// files (ulimit -n) for either side.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	"relayd/bench/site"
	"relayd/internal/sink"
)

func main() {
	b := &bench{}
	flag.IntVar(&b.idle, "idle", 10_000, "idle `connections`")
	flag.IntVar(&b.guesses, "guesses", 500, "wrong `passwords` a second")
	flag.IntVar(&b.each, "each", 3, "`guesses` on one connection; 0: as many as relayd takes")
	flag.DurationVar(&b.period, "time", 30*time.Second, "how long slow clients and guesses go on")
	flag.Parse()
	log.SetFlags(0)
	parts := map[string]func() error{"idle": b.idling, "slow": b.slowness, "guess": b.guessing, "large": b.largeness, "bombs": b.bombing}
	if flag.Arg(0) == "flood" && flag.NArg() == 2 { // begun by guess
		log.Fatal(b.guess(flag.Arg(1), os.Stdout))
	}
	part := parts[flag.Arg(0)]
	if part == nil || flag.NArg() != 1 {
		log.Fatal("say one of idle, slow, guess, large and bombs")
	}
	if err := b.run(part); err != nil {
		log.Fatal(err)
	}
	if b.missed > 0 {
		log.Fatalf("%d goals are missed", b.missed)
	}
}

// A bench is a relayd to be measured and what has come out.
type bench struct {
	idle    int
	guesses int
	each    int
	period  time.Duration
	site    *site.Site
	sink    *sink.Sink // where all mail goes
	missed  int
}

const (
	user     = "app@example.test"
	password = "correct horse battery"
	settings = `hostname = "mx.example.test"
state_dir = %q
[listen]
smtp = ["127.0.0.1:0"]
submission = []
submissions = ["127.0.0.1:0"]
%s
[limits]
connections = 30000
connections_per_ip = 30000
catchall_addresses = 0
message_size = "60MB"
[forward]
answer_within = "0s"
[outbound]
smarthost = "smtp://%s"
`
)

func (b *bench) run(part func() error) error {
	dir, err := os.MkdirTemp("", "relayd-strain-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if b.sink, err = sink.Start(sink.Options{Hostname: "mx.healthy.test", Discard: true}); err != nil {
		return err
	}
	defer b.sink.Close()
	if b.site, err = site.Furnish(dir, b.sink.Addr()); err != nil {
		return err
	}
	if err := errors.Join(b.configure(""), b.site.Certify(1), b.site.Util("user-add", user, "--password="+password),
		b.site.Util("dkim-keygen", "example.test")); err != nil {
		return err
	}
	return part()
}

// configure writes the settings with more lines for [listen].
func (b *bench) configure(listen string) error {
	return b.site.Write("relayd.toml", fmt.Sprintf(settings, b.site.StateDir(), listen, b.sink.Addr()))
}

// report prints a figure beside its goal, which it must not exceed.
func (b *bench) report(what string, got, goal float64, unit string) {
	verdict := "ok"
	if got > goal {
		verdict = "MISSED"
		b.missed++
	}
	log.Printf("%-58s %8.1f %-4s (goal: at most %g) %s", what, got, unit, goal, verdict)
}

// percentile is of durations, in milliseconds.
func percentile(list []time.Duration, percent int) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return float64(list[(len(list)-1)*percent/100].Microseconds()) / 1000
}
