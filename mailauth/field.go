package mailauth

import (
	"errors"
	"strings"

	"relayd/dkim"
)

const (
	maxLine   = 78  // RFC 5322 section 2.1.1, where the words allow it
	maxReason = 100 // octets
)

// AuthenticationResults is the field for the message (RFC 8601), folded, with its CRLF. It is put
// in front, unless a signature of the author covers fields of that name (message.Header.SignedNames).
func (v *Verdict) AuthenticationResults() string {
	f := folder{}
	f.word("Authentication-Results:")
	f.word(value(v.hostname) + ";")
	var results [][]string
	if v.IPRev.Result != None {
		results = append(results, v.iprevResult())
	}
	results = append(results, v.spfResults()...)
	results = append(results, v.dkimResults()...)
	results = append(results, v.dmarcResult())
	for i, words := range results {
		f.newLine()
		for k, word := range words {
			if k == len(words)-1 && i < len(results)-1 {
				word += ";"
			}
			f.word(word)
		}
	}
	return f.String() + "\r\n"
}

// spfResults are the words of a result for each identity that was checked.
func (v *Verdict) spfResults() [][]string {
	if v.sender.IsNull() {
		return [][]string{spfResult(v.HeloSPF, "smtp.helo")}
	}
	list := [][]string{spfResult(v.SPF, "smtp.mailfrom")}
	if v.HeloSPF.Result != None {
		list = append(list, spfResult(v.HeloSPF, "smtp.helo"))
	}
	return list
}

func spfResult(s SPF, property string) []string {
	words := append([]string{"spf=" + string(s.Result)}, reason(s.Err)...)
	if s.Domain != "" {
		words = append(words, property+"="+value(s.Domain))
	}
	return words
}

func (v *Verdict) dkimResults() [][]string {
	if len(v.DKIM) == 0 {
		return [][]string{{"dkim=none"}}
	}
	var list [][]string
	for _, s := range v.DKIM {
		words := append([]string{"dkim=" + string(s.Kind)}, dkimReason(s)...)
		for _, p := range [][2]string{{"header.d", s.Domain}, {"header.s", s.Selector}, {"header.a", s.Algorithm}} {
			if p[1] != "" {
				words = append(words, p[0]+"="+value(p[1]))
			}
		}
		list = append(list, words)
	}
	return list
}

// dkimReason says of a signature that did not pass why; that it is about DKIM, the library need
// not say again.
func dkimReason(s dkim.Result) []string {
	if s.Kind == dkim.Pass {
		return nil
	}
	if s.Err != nil {
		return reason(errors.New(strings.TrimPrefix(s.Err.Error(), "dkim: ")))
	}
	return nil
}

func (v *Verdict) dmarcResult() []string {
	d := &v.DMARC
	words := []string{"dmarc=" + string(d.Result)}
	if d.Policy != "" {
		comment := "(p=" + string(d.Policy)
		if d.Testing {
			comment += " t=y"
		}
		words = append(words, comment+")")
	}
	words = append(words, reason(d.Err)...)
	if v.From.Domain != "" {
		words = append(words, "header.from="+value(v.From.Domain))
	}
	return words
}

// reason is an error as a reason, which is a quoted-string. Much of it may come from outside.
func reason(err error) []string {
	if err == nil {
		return nil
	}
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return '?'
		}
		return c
	}, err.Error())
	words := strings.Fields(text[:min(len(text), maxReason)])
	if len(words) == 0 {
		return nil
	}
	words[0] = `reason="` + words[0]
	words[len(words)-1] += `"`
	return words
}

// value is a value of RFC 8601 section 2.2: a token of RFC 2045, or else quoted. A name that has
// been checked holds nothing that would need an escape.
func value(s string) string {
	if s == "" || strings.ContainsAny(s, "()<>@,;:\\\"/[]?= ") {
		return `"` + s + `"`
	}
	return s
}

// A folder writes the words of a field, and breaks lines between them.
type folder struct {
	strings.Builder
	column int
}

// newLine begins a line, which continues the field by its white space.
func (f *folder) newLine() {
	f.WriteString("\r\n")
	f.column = 0
}

func (f *folder) word(w string) {
	if f.column > 1 && f.column+1+len(w) > maxLine {
		f.newLine()
	}
	if f.Len() > 0 {
		f.WriteByte(' ')
		f.column++
	}
	f.WriteString(w)
	f.column += len(w)
}
