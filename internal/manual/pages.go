package manual

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What only the pages say. Sections begin with "# TITLE"; lines that are indented stand as they are.
var (
	//go:embed relayd.txt
	serverText string
	//go:embed relay-util.txt
	toolText string
)

// Tool writes relay-util(8) from its tree of verbs.
func Tool(w io.Writer, root *cobra.Command, release string) error {
	p := newPage(root.Name(), 8, release, "look after relayd, the mail relay")
	p.heading("SYNOPSIS")
	p.line(".B relay\\-util\n.RI [ flags ]\n.I verb\n.RI [ arguments ]")
	p.heading("DESCRIPTION")
	p.text(root.Short)
	p.heading("OPTIONS")
	p.flags(root.PersistentFlags())
	p.heading("VERBS")
	for _, group := range append(root.Groups(), &cobra.Group{Title: "Other:"}) {
		p.subheading(strings.TrimSuffix(group.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == group.ID && !c.Hidden && c.Name() != "help" {
				p.verb(c)
			}
		}
	}
	p.sections(toolText)
	return p.writeTo(w)
}

// verb explains one verb of relay-util.
func (p *page) verb(c *cobra.Command) {
	p.line(".TP\n.B %s", quoted(c.Use))
	long := c.Long
	if long == "" {
		long = c.Short
	}
	for i, paragraph := range strings.Split(strings.TrimSpace(long), "\n\n") {
		if i > 0 {
			p.line(".IP")
		}
		p.prose(paragraph)
	}
	p.line(".RS")
	p.flags(c.LocalNonPersistentFlags())
	if c.Example != "" {
		p.literal(strings.ReplaceAll("\n"+c.Example, "\n  ", "\n"))
	}
	p.line(".RE")
}

// flags lists what can be set, but for --help.
func (p *page) flags(set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		placeholder, usage := pflag.UnquoteUsage(f)
		if placeholder != "" {
			term += " " + placeholder
		}
		if !slices.Contains([]string{"", "false", "0", "[]", "0s"}, f.DefValue) {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		p.tagged(term, usage)
	})
}

// Server writes relayd(8). usage is what `relayd -help` prints.
func Server(w io.Writer, usage, release string) error {
	p := newPage("relayd", 8, release, "mail relay: submission for a domain's users, forwarding for its addresses")
	p.heading("SYNOPSIS")
	p.line(".B relayd\n.RI [ flags ]")
	before, after, _ := strings.Cut(serverText, "# OPTIONS\n")
	p.sections(before)
	p.heading("OPTIONS")
	term := ""
	for l := range strings.SplitSeq(usage, "\n") {
		switch {
		case strings.HasPrefix(l, "  -"):
			term = strings.TrimSpace(l)
		case strings.HasPrefix(l, "    \t") && term != "":
			p.tagged(term, l)
			term = ""
		case strings.HasPrefix(l, "    \t"):
			p.prose(l)
		}
	}
	p.sections(after)
	return p.writeTo(w)
}

// Settings writes relayd.toml(5) or domain.toml(5) from the file in etc/ that explains every key.
func Settings(w io.Writer, name, toml, release string) error {
	p := newPage(name, 5, release, map[string]string{
		"relayd.toml": "settings of relayd",
		"domain.toml": "settings of a domain that relayd hosts",
	}[name])
	p.heading("DESCRIPTION")
	var comment []string
	for l := range strings.SplitSeq(toml, "\n") {
		key, isKey := setting(l)
		switch {
		case strings.HasPrefix(l, "# "):
			comment = append(comment, l[2:])
			continue
		case isKey:
			p.tagged(key, strings.Join(comment, "\n"))
		case strings.HasPrefix(l, "["):
			p.heading(l)
			p.prose(strings.Join(comment, "\n"))
		case len(comment) > 0: // the head of the file
			p.prose(strings.Join(comment, "\n"))
			p.heading("SETTINGS")
		}
		comment = nil
	}
	p.heading("SEE ALSO")
	p.line(".BR relayd (8),\n.BR relay\\-util (8),\n.BR relayd.toml (5),\n.BR domain.toml (5)")
	return p.writeTo(w)
}

// setting recognises a line that shows a key, commented out or not.
func setting(line string) (text string, ok bool) {
	text = strings.TrimPrefix(line, "#")
	name, _, ok := strings.Cut(text, " = ")
	return text, ok && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// sections writes text whose headings begin with "# ". An indented block stands as it is.
func (p *page) sections(text string) {
	for i, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		title, isTitle := strings.CutPrefix(block, "# ")
		if isTitle {
			title, block, _ = strings.Cut(title, "\n")
			p.heading(title)
		}
		switch term, explanation, tagged := strings.Cut(block, "\n    "); {
		case strings.HasPrefix(block, "    "):
			p.literal(strings.ReplaceAll("\n"+block, "\n    ", "\n"))
		case tagged:
			p.tagged(term, explanation)
		case !isTitle && i > 0:
			p.line(".PP")
			p.prose(block)
		default:
			p.prose(block)
		}
	}
}
