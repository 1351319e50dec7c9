package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A cage holds all processes of a relay, those of others that it starts included: it is a control
// group (version 2, of which no controller is needed), which counts their processor time and can end them.
type cage struct {
	dir  string
	fd   *os.File
	logs []*os.File
	wg   sync.WaitGroup // for those that we started ourselves

	stop chan struct{}
	mu   sync.Mutex
	peak int64 // bytes, since the last reset
}

// cages is the folder that control groups are made in.
func cages() (string, error) {
	text, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("there are no control groups of version 2, which count processor time: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

// newCage makes a cage, whose name begins with that of the work folder.
func newCage(name string) (*cage, error) {
	top, err := cages()
	if err != nil {
		return nil, err
	}
	c := &cage{dir: filepath.Join(top, name), stop: make(chan struct{})}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, err
	}
	if c.fd, err = os.Open(c.dir); err != nil {
		return nil, err
	}
	c.wg.Go(c.watch)
	return c, nil
}

// removeCages takes away those of a run that was ended in the middle.
func removeCages(prefix string) {
	top, err := cages()
	if err != nil {
		return
	}
	left, _ := filepath.Glob(filepath.Join(top, prefix+"*"))
	for _, dir := range left {
		removeGroup(dir)
	}
}

// removeGroup waits a little, for a group has to be empty.
func removeGroup(dir string) {
	for range 100 {
		if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// start starts a program in the cage; what it says goes to a file.
func (c *cage) start(log string, name string, args ...string) error {
	cmd := c.command(name, args...)
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	c.logs = append(c.logs, out)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	c.wg.Go(func() { _ = cmd.Wait() }) // it ends when we end it
	return nil
}

func (c *cage) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.fd.Fd())}
	return cmd
}

// cpu is the processor time of all processes there have been.
func (c *cage) cpu() time.Duration {
	text, _ := os.ReadFile(filepath.Join(c.dir, "cpu.stat"))
	var usec int64
	fmt.Sscanf(string(text), "usage_usec %d", &usec)
	return time.Duration(usec) * time.Microsecond
}

// memory is what all processes have in memory now, in bytes; pages that they share count for each.
func (c *cage) memory() (bytesUsed int64, processes int) {
	text, _ := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	for pid := range bytes.FieldsSeq(text) {
		statm, err := os.ReadFile("/proc/" + string(pid) + "/statm")
		if f := bytes.Fields(statm); err == nil && len(f) > 1 {
			pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
			bytesUsed += pages * int64(os.Getpagesize())
			processes++
		}
	}
	return bytesUsed, processes
}

// watch notes the peak of memory.
func (c *cage) watch() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now, _ := c.memory()
			c.mu.Lock()
			c.peak = max(c.peak, now)
			c.mu.Unlock()
		case <-c.stop:
			return
		}
	}
}

// resetPeak has the peak begin anew.
func (c *cage) resetPeak() {
	c.mu.Lock()
	c.peak = 0
	c.mu.Unlock()
}

// peakMemory is the most that memory was since then, in bytes.
func (c *cage) peakMemory() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peak
}

// end kills everything in the cage.
func (c *cage) end() {
	close(c.stop)
	_ = os.WriteFile(filepath.Join(c.dir, "cgroup.kill"), []byte("1"), 0o644)
	c.wg.Wait()
	for _, l := range c.logs {
		l.Close()
	}
	c.fd.Close()
	removeGroup(c.dir)
}
