// Command powercut cuts the power under a relayd that takes and forwards mail, again and again,
// and counts what became of every message that had been answered 250 by then: lost, damaged, or
// delivered more than once. It exits with 1 if one is lost or damaged.
//
//	go run ./bench/powercut -cuts 200
//
// It needs root, /dev/fuse, loop devices and e2fsprogs. Everything that it mounts is in a mount
// namespace of its own and every process in a process namespace, so that nothing is left of them
// however it ends.
//
// The state folder of relayd is on ext4, behind a loop device whose file is served from here: so
// every write and every flush that the kernel sends to its disk passes by, in memory. A cut is
// taken at one instant, between two of them. What was written before the end of the last flush is
// in it; of what was written since, there is nothing, or a part in order, or all, or any sectors
// of 512 octets by chance, earlier ones left out and later ones there. What the kernel had not
// sent to the disk is not in it. The copy is mounted, which replays the journal of ext4, another
// relayd starts on it, delivers all that it finds to a server of its own, and e2fsck looks over
// what is left. Every third copy loses its power once more while that goes on.
//
// So this is what a power cut does with a disk that keeps the promise of a flush, under ext4 as
// mkfs and mount have it by default. It is no proof for other file systems, nor for a disk that
// lies about flushes (-late shows what such a one costs), loses what it had written, or fails.
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
	"runtime"
	"syscall"
	"time"
)

func main() {
	cuts := flag.Int("cuts", 200, "how `often`")
	late := flag.Duration("late", 0, "the disk lies: a flush is answered, and the data written so much `later`")
	flag.Parse()
	var err error
	if os.Getpid() == 1 {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // a second signal ends it at once
		err = run(ctx, options{dir: flag.Arg(0), cuts: *cuts, late: *late})
	} else {
		err = contained()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(max(1, exit.ExitCode())) // it has said why
	}
	if err != nil {
		log.Fatal(err)
	}
}

// contained runs this program in namespaces of its own, with a folder that is removed afterwards.
func contained() error {
	runtime.LockOSThread() // the death of this thread is what the other process is to die of
	dir, err := os.MkdirTemp("", "relayd-powercut-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	cmd := exec.Command("/proc/self/exe", append(os.Args[1:], dir)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		Setpgid: true, // a signal from the keyboard comes through us, once
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("making namespaces, which needs root: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			cmd.Process.Signal(s)
		case err := <-ended:
			return err
		}
	}
}

// pause waits, and returns ctx's error if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
