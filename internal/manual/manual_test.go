package manual

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestToolNamesEveryVerbAndFlag(t *testing.T) {
	root := &cobra.Command{Use: "relay-util", Short: "Look after things."}
	root.PersistentFlags().StringP("config", "c", "/etc/x.toml", "the settings `FILE`")
	root.AddGroup(&cobra.Group{ID: "Queue:", Title: "Queue:"})
	run := func(*cobra.Command, []string) {}
	listing := &cobra.Command{Use: "queue-list", Short: "List.", Long: "List them.\n\n.Hidden or not.", GroupID: "Queue:", Run: run,
		Example: "  relay-util queue-list\n  relay-util queue-list --older 3d"}
	listing.Flags().Int("limit", 20, "at most `N`")
	root.AddCommand(listing, &cobra.Command{Use: "secret", Hidden: true, Run: run}, &cobra.Command{Use: "completion", Short: "Complete.", Run: run})
	var b strings.Builder
	if err := Tool(&b, root, "1.0"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		".TH \"RELAY\\-UTIL\" 8 \"\" \"relayd 1.0\"\n",
		".B \"\\-c, \\-\\-config FILE\"\nthe settings FILE (default /etc/x.toml)\n",
		".SS \"Queue\"\n.TP\n.B \"queue\\-list\"\nList them.\n.IP\n\\&.Hidden or not.\n",
		".B \"\\-\\-limit N\"\nat most N (default 20)\n",
		"\nrelay\\-util queue\\-list\nrelay\\-util queue\\-list \\-\\-older 3d\n.fi\n",
		".SS \"Other\"\n.TP\n.B \"completion\"\n",
		".SH \"EXIT STATUS\"\n.TP\n.B \"0\"\nyes, or done.\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "secret") {
		t.Error("a hidden verb is shown")
	}
}

func TestServerExplainsTheFlagsThatItIsGiven(t *testing.T) {
	var b strings.Builder
	usage := "Usage of relayd:\n  -c file\n    \tthe file (default \"/x\")\n  -check\n    \tread it\n    \tall\n"
	if err := Server(&b, usage, "1.0"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		".SH \"OPTIONS\"\n.TP\n.B \"\\-c file\"\nthe file (default \"/x\")\n.TP\n.B \"\\-check\"\nread it\nall\n.SH \"SIGNALS\"\n",
		".nf\n[listen]\nsmtp        = [\"systemd:smtp\"]\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestSettingsLoseNothing: every line of the explained settings stands on the page.
func TestSettingsLoseNothing(t *testing.T) {
	for _, name := range []string{"relayd.toml", "domain.toml"} {
		source, err := os.ReadFile("../../etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := Settings(&b, name, string(source), "1.0"); err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(source), "\n") {
			if text := strings.TrimSpace(strings.TrimPrefix(line, "#")); !strings.Contains(b.String(), strings.TrimPrefix(quoted(text), `"`)) &&
				!strings.Contains(b.String(), escape(text)) {
				t.Errorf("%s: %q is not on the page", name, text)
			}
		}
	}
}

// FuzzEscape: whatever a comment or a flag says, it starts no request and ends no argument.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{".TH", "'br", `a"b\fB`, `\&`, "-c", "…"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if line := escape(s); strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			t.Errorf("%q begins a request", line)
		}
		if arg := quoted(s); strings.Count(arg, `"`) != 2 {
			t.Errorf("%s is more than one argument", arg)
		}
	})
}
