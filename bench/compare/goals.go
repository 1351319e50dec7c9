package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relayd/bench/traffic"
)

// find is the figure of a contender in a scenario, nil if there is none.
func (b *bench) find(scenario, contender string) *figure {
	for _, f := range b.results[scenario] {
		if f.contender == contender && f.problem == "" {
			return f
		}
	}
	return nil
}

// best is the peer of whom most arrived in a second.
func (b *bench) best(scenario string) *figure {
	var best *figure
	for _, p := range peers[1:] {
		if f := b.find(scenario, p.name); f != nil && (best == nil || f.per(f.arrived) > best.per(best.arrived)) {
			best = f
		}
	}
	return best
}

// goals is a table of what was aimed at and what was reached.
func (b *bench) goals() string {
	var t strings.Builder
	t.WriteString("| goal | reached | |\n|---|---|---|\n")
	row := func(goal, reached string, met bool) {
		fmt.Fprintf(&t, "| %s | %s | %s |\n", goal, reached, map[bool]string{true: "met", false: "**not met**"}[met])
	}
	times := func(scenario, contender string, other *figure, want float64) {
		us := b.find(scenario, contender)
		if us == nil || other == nil {
			return
		}
		rate := other.per(other.arrived)
		got, limit := us.per(us.arrived)/rate, ""
		if most := b.signs / rate; most < want && contender != "relayd "+unsigned {
			limit = fmt.Sprintf("; processors that did nothing but sign would reach %.1f ×", most)
		}
		row(fmt.Sprintf("%s, %s: %g × %s", scenario, contender, want, other.contender), fmt.Sprintf("%.1f ×", got)+limit, got >= want)
	}
	forwarding := []struct {
		scenario string
		want     float64
	}{{"forward-1", 4}, {"forward-50", 6}}
	for _, f := range forwarding {
		times(f.scenario, "relayd", b.best(f.scenario), f.want)
	}
	for _, f := range forwarding {
		times(f.scenario, "relayd "+durable, b.best(f.scenario), 3)
	}
	for _, f := range forwarding { // what the others do: none of them signs what it forwards
		times(f.scenario, "relayd "+unsigned, b.best(f.scenario), f.want)
	}
	times("submit-1", "relayd", b.find("submit-1", "chasquid"), 15)
	times("submit-1", "relayd", b.best("submit-1"), 1)
	if us, other := b.find("submit-50", "relayd"), b.best("submit-50"); us != nil && other != nil {
		ratio, share := us.per(us.arrived)/other.per(other.arrived), us.per(us.arrived)/b.signs
		row(fmt.Sprintf("submit-50: 3 × %s, or 75 %% of what signing alone allows", other.contender),
			fmt.Sprintf("%.1f ×, %.0f %% of %.0f/s", ratio, share*100, b.signs), ratio >= 3 || share >= 0.75)
	}
	if us, other := b.find("lone", "relayd"), b.find("lone", "postfix"); us != nil && other != nil {
		ourP50, p50 := traffic.Percentile(us.sum.Latencies, 0.5), traffic.Percentile(other.sum.Latencies, 0.5)
		row("lone: p50 no more than Postfix's "+ms(p50)+" ms", ms(ourP50)+" ms", ourP50 <= p50)
	}
	times("big", "relayd", b.find("big", "postfix"), 2)
	if us := b.find("rcpt100", "relayd"); us != nil {
		each := float64(us.sum.Bodies) / float64(max(1, us.sum.Arrived))
		row("rcpt100: one body for 100 recipients", fmt.Sprintf("%.2f", each), each <= 1.01)
	}
	b.sizes(row)
	return t.String()
}

// sizes are the goals about memory and disk, and that nothing is lost.
func (b *bench) sizes(row func(goal, reached string, met bool)) {
	if us := b.find("idle", "relayd"); us != nil {
		row("idle: 25 MiB at most", fmt.Sprintf("%.1f MiB", mib(us.memory)), us.memory <= 25<<20)
	}
	var peak int64
	var scenario string
	var lost, duplicate int
	for _, s := range scenarios {
		for _, name := range []string{"relayd", "relayd " + durable, "relayd " + unsigned} {
			us := b.find(s.name, name)
			if us == nil || s.idle {
				continue
			}
			if us.memory > peak {
				peak, scenario = us.memory, s.name
			}
			lost, duplicate = lost+us.sum.Lost, duplicate+us.sum.Duplicate
		}
	}
	if scenario != "" {
		row("under load: 100 MiB at most", fmt.Sprintf("%.0f MiB (%s)", mib(peak), scenario), peak <= 100<<20)
		row("nothing lost, nothing twice", fmt.Sprintf("%d lost, %d duplicate", lost, duplicate), lost+duplicate == 0)
	}
	if info, err := os.Stat(filepath.Join(b.w.dir, "relayd")); err == nil {
		row("the program as it is released, without symbols: 20 MB at most", fmt.Sprintf("%.1f MB", float64(info.Size())/1e6), info.Size() <= 20e6)
	}
	row("a run of this: 12 minutes at most", time.Since(b.begun).Round(time.Second).String(), time.Since(b.begun) < 12*time.Minute)
}
