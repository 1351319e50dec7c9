package metrics

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"relayd/filter"
	"relayd/queue"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func sources(groups int) Sources {
	depth := map[string]int{}
	var status []queue.GroupStatus
	for n := range groups {
		name := fmt.Sprintf("d%04d.test", n)
		depth[name] = n + 1
		status = append(status, queue.GroupStatus{Name: name, Used: n % 3, Window: n%20 + 1})
	}
	return Sources{
		Store: func() queue.Stats {
			return queue.Stats{Messages: 7, Held: 2, Bytes: 4096, Oldest: noon.Add(-time.Hour), Segments: 3, Syncs: 10, Commits: 40, SyncTime: 2 * time.Second}
		},
		Healthy:     func() bool { return groups > 2 },
		Waiting:     func() map[string]int { return depth },
		Counts:      func() queue.Counts { return queue.Counts{Delivered: 5, Deferred: 3, Failed: 1, Running: 2} },
		Groups:      func() []queue.GroupStatus { return slices.Clone(status) },
		Connections: func() int { return 4 },
		Filtered:    func() filter.Counts { return filter.Counts{DNSBL: 1, Rspamd: 2, Milter: 3, Suspect: 4} },
		Certificates: func() []Certificate {
			return []Certificate{{Name: "mx.example.test", File: "/x", Expires: noon}, {Name: "mx.example.test", Expires: noon}}
		},
		Now: func() time.Time { return noon },
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestScrape(t *testing.T) {
	m := New(sources(2))
	m.Accepted(3 * time.Millisecond)
	text := scrape(t, m)
	for _, line := range []string{
		"relayd_queue_messages 7", "relayd_queue_healthy 0", "relayd_queue_held_messages 2", "relayd_queue_bytes 4096", "relayd_queue_oldest_seconds 3600",
		"relayd_queue_segments 3", `relayd_queue_waiting_recipients{group="d0001.test"} 2`, `relayd_queue_group_slots{group="d0001.test"} 2`,
		`relayd_attempts_total{result="deferred"} 3`, "relayd_attempts_running 2", "relayd_queue_syncs_total 10", "relayd_queue_commits_total 40",
		"relayd_queue_sync_seconds_total 2", "relayd_smtp_connections 4", `relayd_filtered_total{by="dnsbl"} 1`, `relayd_filtered_total{by="rspamd"} 2`,
		`relayd_filtered_total{by="milter"} 3`, `relayd_filtered_total{by="suspect"} 4`, "relayd_accept_seconds_count 1",
		`relayd_certificate_expiry_timestamp_seconds{file="/x",name="mx.example.test"} 1.7803152e+09`,
		`relayd_accept_seconds_bucket{le="0.002"} 0`, `relayd_accept_seconds_bucket{le="0.005"} 1`, "process_resident_memory_bytes",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	if problems, err := testutil.GatherAndLint(m.registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestManyGroups: the largest are told of, and no more than Prometheus bears.
func TestManyGroups(t *testing.T) {
	text := scrape(t, New(sources(1000)))
	if n := strings.Count(text, "relayd_queue_waiting_recipients{"); n != maxGroups {
		t.Errorf("%d groups", n)
	}
	if !strings.Contains(text, "\nrelayd_queue_healthy 1\n") {
		t.Error("not healthy")
	}
	if !strings.Contains(text, `{group="d0999.test"} 1000`) || strings.Contains(text, `relayd_queue_waiting_recipients{group="d0000.test"}`) {
		t.Error("not the largest")
	}
}

// TestWhatIsShippedAsksForFiguresThatExist: a dashboard with a misspelt name shows nothing, and such
// an alert never comes.
func TestWhatIsShippedAsksForFiguresThatExist(t *testing.T) {
	m := New(sources(2))
	m.Accepted(3 * time.Millisecond)
	there := map[string]bool{}
	for line := range strings.Lines(scrape(t, m)) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "{")
		there[name] = true
	}
	name := regexp.MustCompile(`\b(?:relayd|process|go)_[a-z_]+\b`)
	for _, file := range []string{"../etc/grafana-dashboard.json", "../etc/alerts.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := name.FindAllString(string(text), -1)
		if len(names) < 4 {
			t.Errorf("%s asks for %v only", file, names)
		}
		for _, n := range names {
			if !there[n] {
				t.Errorf("%s asks for %s, which no scrape has", file, n)
			}
		}
	}
	dashboard, _ := os.ReadFile("../etc/grafana-dashboard.json")
	if !json.Valid(dashboard) {
		t.Error("the dashboard is no JSON")
	}
}
