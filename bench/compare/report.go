package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relayd/bench/traffic"
)

// per is a mean over the rounds.
func (f *figure) per(sum float64) float64 { return sum / float64(max(1, f.rounds)) }

// cpuEach is the processor time of one message that arrived.
func (f *figure) cpuEach() time.Duration { return f.cpu / time.Duration(max(1, f.sum.Arrived)) }

// ours is relayd's figure, nil if it did not take part.
func ours(list []*figure) *figure {
	for _, f := range list {
		if f.contender == "relayd" && f.problem == "" {
			return f
		}
	}
	return nil
}

// table is a scenario's results in Markdown.
func (b *bench) table(s scenario) string {
	var t strings.Builder
	list := b.results[s.name]
	us := ours(list)
	fmt.Fprintf(&t, "**%s**: %s\n\n", s.name, s.about)
	if s.idle {
		t.WriteString("| relay | memory MiB | processes |\n|---|--:|--:|\n")
		for _, f := range list {
			fmt.Fprintf(&t, "| %s | %.1f | %d |\n", f.contender, mib(f.memory), f.processes)
		}
		return t.String() + problems(list)
	}
	t.WriteString("| relay | accepted/s | arrived/s | relayd is | p50 ms | p99 ms | CPU ms each | memory MiB | bodies each | lost | duplicate |\n|---|" +
		strings.Repeat("--:|", 10) + "\n")
	for _, f := range list {
		if f.problem != "" {
			continue
		}
		ratio := "–"
		if us != nil && f != us && f.arrived > 0 {
			ratio = fmt.Sprintf("%.1f ×", us.per(us.arrived)/f.per(f.arrived))
		}
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %s | %s | %.2f | %.0f | %.3g | %d | %d |\n", f.contender, rate(f.per(f.accepted)), rate(f.per(f.arrived)), ratio,
			ms(traffic.Percentile(f.sum.Latencies, 0.5)), ms(traffic.Percentile(f.sum.Latencies, 0.99)), f.cpuEach().Seconds()*1000, mib(f.memory),
			float64(f.sum.Bodies)/float64(max(1, f.sum.Arrived)), f.sum.Lost, f.sum.Duplicate)
	}
	return t.String() + problems(list)
}

// problems tells what went wrong, which is nothing as a rule.
func problems(list []*figure) string {
	var t strings.Builder
	for _, f := range list {
		switch {
		case f.problem != "":
			fmt.Fprintf(&t, "\n%s has no figures: %s\n", f.contender, f.problem)
		case f.refused+f.broken+f.sum.Damaged+f.sum.Refused > 0:
			fmt.Fprintf(&t, "\n%s: %d refused, %d connections broken, %d bodies of another size, %d refused by the destination", f.contender, f.refused, f.broken, f.sum.Damaged, f.sum.Refused)
			if f.example != "" {
				fmt.Fprintf(&t, "; it said %q", f.example)
			}
			t.WriteString(".\n")
		}
	}
	return t.String()
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func ms(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.0f", d.Seconds()*1000)
}

func rate(r float64) string {
	if r < 100 {
		return fmt.Sprintf("%.1f", r)
	}
	return fmt.Sprintf("%.0f", r)
}

// publish writes the results.
func (b *bench) publish() error {
	var t strings.Builder
	t.WriteString("# Speed beside the others\n\nMade by `go run ./bench/compare`, as root. " + b.f.how() + "\n\n![Messages a second](speed.svg)\n\n")
	fmt.Fprintf(&t, "%s · %s · relayd %s\n\n", b.begun.Format("2 January 2006"), machine(b.w.dir), os.Getenv("COMPARE_COMMIT"))
	for _, p := range peers {
		if v := b.found[p.name]; v != "" && p.name != "relayd" {
			fmt.Fprintf(&t, "- %s: %s\n", p.name, v)
		}
	}
	t.WriteString("\n" + explanation + "\n## Goals\n\n" + b.goals() + "\n## Figures\n\n")
	for _, s := range scenarios {
		if b.results[s.name] != nil {
			t.WriteString(b.table(s) + "\n")
		}
	}
	if err := os.WriteFile(filepath.Join(b.f.out, "RESULTS.md"), []byte(t.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.f.out, "speed.svg"), []byte(b.chart()), 0o644)
}

// how says how much was measured.
func (f flags) how() string {
	return fmt.Sprintf("Each relay had %d turns of %g seconds in every scenario (submission: twice that), one after the other.", f.rounds, f.seconds)
}

const explanation = `The sessions that send, the destination and the name server run on the same processors as the relay
and are the same for all, so compare the figures of one run only: the ratios say more than the
rates. Every relay starts anew for each turn, with its queue on the same disk, and is warm for half a second. Sessions wait for the
answer to each command, and send the next message as soon as they have the answer to the one before.

- *accepted* is answered 250, *arrived* is taken by the destination; arrived/s is up to the last one, so that who accepts
  faster than it delivers gains nothing by that.
- *p50*, *p99*: from MAIL to the arrival. Where messages wait in a queue, that includes the wait.
- *CPU* and *memory* are of all processes of a relay, with its password and signing programs: processor time
  for each message that arrived, and the peak of the sum of what is resident (shared pages count for each process).
- *bodies*: how often the message was transferred to the destination.
- *lost* counts recipients of accepted messages for whom nothing had arrived 20 s after the last was sent, *duplicate* those who got more than one.
- *relayd* forwards while the sender waits, as it does unless told otherwise, and checks SPF, DKIM and DMARC, which
  of the others only chasquid does in part (SPF); it also signs what it forwards and rewrites the sender, which none of
  them does here. *relayd durable* has every message on disk before it answers (` + "`answer_within = \"0s\"`" + `), as the others do.
  *relayd unsigned* has no DKIM key, so it signs nothing, as the others do not when they forward.
- Passwords are bcrypt with cost 10, but chasquid has its own kind (scrypt). relayd alone remembers that a password was right, which is
  most of submit-1. The certificate is ECDSA, signatures are RSA-2048.
`

// machine describes it.
func machine(dir string) string {
	model, cores := "unknown processor", 0
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			switch strings.TrimSpace(key) {
			case "model name":
				model = strings.TrimSpace(value)
			case "processor":
				cores++
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	memory, _ := os.ReadFile("/proc/meminfo")
	var kb int64
	fmt.Sscanf(string(memory), "MemTotal: %d kB", &kb)
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d × %s, %.0f GB, Linux %s, load %s at the end", cores, model, float64(kb)/(1<<20), strings.TrimSpace(string(kernel)),
		strings.Fields(string(load) + " ?")[0])
}
