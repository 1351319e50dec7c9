// Command fuzz runs every fuzz target of the project for a while and prints what that came to:
// inputs tried, inputs that found new ways through the code, and the processor time it took. What
// is found is kept in the build cache, where the next run goes on from, and an input that fails
// in the package's testdata. It exits with 1 if a target failed.
//
//	go run ./bench/fuzz -time 1h              one target after another, for an hour each
//	go run ./bench/fuzz -time 1m -run smtpd   those whose package or name matches
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

func main() {
	period := flag.Duration("time", time.Hour, "how long each target runs")
	workers := flag.Int("workers", runtime.NumCPU(), "how many processes try inputs of a target")
	only := flag.String("run", "", "a regular expression that the package and target, as `smtpd.FuzzSession`, must match")
	flag.Parse()
	log.SetFlags(0)
	pattern, err := regexp.Compile(*only)
	if err != nil {
		log.Fatal(err)
	}
	if err := run(pattern, *period, *workers); err != nil {
		log.Fatal(err)
	}
}

// A target is a fuzz function of a package.
type target struct{ folder, name string }

func (t target) String() string { return filepath.ToSlash(t.folder) + "." + t.name }

func run(pattern *regexp.Regexp, period time.Duration, workers int) error {
	targets, err := find(".", pattern)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errors.New("no fuzz target here matches: it must be run in the project's folder")
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("asking for the build cache: %w", err)
	}
	dir, err := os.MkdirTemp("", "relayd-fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%d targets, %v each, %d workers\n%-34s %14s %8s %10s\n", len(targets), period, workers, "target", "execs", "new", "CPU")
	failed := 0
	var execs, found int64
	var cpu time.Duration
	for _, t := range targets {
		r := t.fuzz(dir, strings.TrimSpace(string(cache)), period, workers)
		fmt.Printf("%-34s %14d %8d %10s\n", t, r.execs, r.found, r.cpu.Round(time.Second))
		execs, found, cpu = execs+r.execs, found+r.found, cpu+r.cpu
		if r.err != nil {
			failed++
			fmt.Printf("%s FAILED: %v\n%s", t, r.err, r.output)
		}
	}
	fmt.Printf("%-34s %14d %8d %10s\n", "all", execs, found, cpu.Round(time.Second))
	if failed > 0 {
		return fmt.Errorf("%d targets failed", failed)
	}
	return nil
}

var function = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)

// find lists the fuzz targets below a folder.
func find(root string, pattern *regexp.Regexp) ([]target, error) {
	var list []target
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range function.FindAllSubmatch(text, -1) {
			t := target{filepath.Dir(path), string(m[1])}
			if pattern.MatchString(t.String()) {
				list = append(list, t)
			}
		}
		return nil
	})
	return list, err
}

// A result is what a run of a target came to.
type result struct {
	execs, found int64
	cpu          time.Duration // of it and its workers
	output       []byte
	err          error
}

var progress = regexp.MustCompile(`execs: (\d+) .*new interesting: (\d+)`)

// fuzz builds the tests of the target's package and runs the target. What it finds goes to cache.
func (t target) fuzz(dir, cache string, period time.Duration, workers int) (r result) {
	folder := filepath.ToSlash(t.folder)
	binary := filepath.Join(dir, strings.ReplaceAll(folder, "/", "_"))
	r.output, r.err = exec.Command("go", "test", "-c", "-fuzz=.", "-o", binary, "./"+folder).CombinedOutput()
	if r.err != nil {
		return r
	}
	cmd := exec.Command(binary, "-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzztime="+period.String(), "-test.fuzzminimizetime=10s",
		fmt.Sprintf("-test.parallel=%d", workers), "-test.timeout=0", "-test.fuzzcachedir="+filepath.Join(cache, "fuzz", "relayd", folder))
	cmd.Dir = t.folder
	r.output, r.err = cmd.CombinedOutput()
	if s := cmd.ProcessState; s != nil {
		r.cpu = s.UserTime() + s.SystemTime()
	}
	if all := progress.FindAllSubmatch(r.output, -1); len(all) > 0 {
		last := all[len(all)-1]
		fmt.Sscan(string(last[1]), &r.execs)
		fmt.Sscan(string(last[2]), &r.found)
	}
	// Where the time runs out in the middle of a try, the toolchain calls that a failure.
	if r.err != nil && bytes.Contains(r.output, []byte("context deadline exceeded")) && !bytes.Contains(r.output, []byte("Failing input")) {
		r.err = nil
	}
	return r
}
