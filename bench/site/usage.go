package site

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Util runs relay-util with the site's settings.
func (s *Site) Util(args ...string) error {
	cmd := exec.Command(filepath.Join(s.programs, "relay-util"), append([]string{"-c", s.Config()}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("relay-util %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// CPU is the processor time that the daemon has used.
func (d *Daemon) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	if err != nil {
		return 0, err
	}
	// Behind the name, which may hold anything: utime and stime are the 12th and 13th field, in ticks of
	// a hundredth of a second (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

// Memory is the daemon's resident memory in bytes, now and at its highest.
func (d *Daemon) Memory() (now, highest int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	for line := range strings.SplitSeq(string(status), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			now = kib << 10
		case "VmHWM:":
			highest = kib << 10
		}
	}
	return now, highest, err
}

// Files is how many files and sockets the daemon has open.
func (d *Daemon) Files() int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	return len(list)
}
