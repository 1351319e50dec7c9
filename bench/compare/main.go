// Command compare measures relayd beside other mail relays: Postfix, with Dovecot for passwords and
// OpenDKIM for signatures, chasquid and Exim, each as Debian has it. Those that are not there are left out. As root:
//
//	go run ./bench/compare                     # everything, about ten minutes; writes bench/RESULTS.md
//	go run ./bench/compare -quick              # one short round, writes nothing
//	go run ./bench/compare -run forward -peers relayd,postfix
//	go run ./bench/compare -list
//
// All of it happens in namespaces of its own: a network with nothing but a loopback interface and a
// name server of ours, a copy of /etc, and processes that end with the program. Every relay gets the
// same traffic from the same sessions, one relay after the other and then from the beginning, so
// that what else the machine does hits all alike. The queues are on the disk that -dir is on, for a
// relay that syncs to memory measures nothing.
//
// The sessions and the destination share the processors with the relay, so the figures are what the
// machine does with both. Compare those of one run only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Flags are what a person may choose.
type flags struct {
	dir     string
	out     string
	run     *regexp.Regexp
	peers   string
	rounds  int
	seconds float64
	limit   time.Duration
}

// inside names the variable that tells the program it is in its namespaces, and the work folder.
const inside = "RELAYD_COMPARE_INSIDE"

func main() {
	log.SetFlags(0)
	if key := os.Getenv(signer); key != "" {
		if err := sign(key); err != nil {
			log.Fatal(err)
		}
		return
	}
	var f flags
	run := flag.String("run", "", "only scenarios whose names match this `pattern`; then nothing is written unless -out is given")
	quick := flag.Bool("quick", false, "one round of a second each, and nothing is written unless -out is given")
	list := flag.Bool("list", false, "say which scenarios there are")
	flag.StringVar(&f.dir, "dir", os.TempDir(), "the `folder` whose disk the queues are on")
	flag.StringVar(&f.out, "out", "", "the `folder` for RESULTS.md and speed.svg (default bench, for everything)")
	flag.StringVar(&f.peers, "peers", "relayd,postfix,chasquid,exim", "which relays, with commas")
	flag.IntVar(&f.rounds, "rounds", 2, "how often each relay has its turn")
	flag.Float64Var(&f.seconds, "seconds", 3, "how long each scenario sends")
	flag.DurationVar(&f.limit, "limit", 11*time.Minute, "how long all may take, about; scenarios that are late have one round")
	flag.Parse()
	if *list {
		for _, s := range scenarios {
			fmt.Printf("%-14s %s\n", s.name, s.about)
		}
		return
	}
	var err error
	if f.run, err = regexp.Compile(*run); err != nil {
		log.Fatal(err)
	}
	if *quick {
		f.rounds, f.seconds = 1, 1
	}
	if f.out == "" && !*quick && *run == "" {
		f.out = "bench"
	}
	if work := os.Getenv(inside); work != "" {
		err = measureAll(work, f)
	} else {
		err = enter(f)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// enter builds what is measured and goes on in namespaces of its own.
func enter(f flags) error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root, for namespaces and for the ports of mail: sudo go run ./bench/compare")
	}
	work, err := os.MkdirTemp(f.dir, "relayd-compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil { // others' programs change to users of their own
		return err
	}
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", work+"/", "./cmd/relayd", "./cmd/relay-util")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building relayd (from the top of its source): %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+work, "COMPARE_COMMIT="+commit())
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = os.Stdout, os.Stderr, 10*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	removeCages(filepath.Base(work))
	return err
}

// commit names what is measured.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
