package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A pattern is one value of a selector: a whole text, or its beginning, its
// end, or something within it.
type pattern struct {
	text        string
	open, ended bool // something may come before the text, or behind it
}

// match reports whether s fits. Nothing fits no pattern.
func (p *pattern) match(s string) bool {
	switch {
	case !p.open && !p.ended:
		return s == p.text
	case s == "":
		return false
	case !p.open:
		return strings.HasPrefix(s, p.text)
	case !p.ended:
		return strings.HasSuffix(s, p.text)
	}
	return strings.Contains(s, p.text)
}

// exact reports whether only one text fits.
func (p *pattern) exact() bool { return !p.open && !p.ended }

var (
	errEmpty     = errors.New(`is empty; "*" is whatever is there`)
	errStar      = errors.New(`has a * inside: a * stands at the beginning or at the end, a star itself is written \*`)
	errBackslash = errors.New(`has a backslash that escapes nothing: it stands in front of *, ! or another backslash`)
)

// parsePattern reads a value as [trace.Rule] says it is written.
func parsePattern(s string) (p pattern, not bool, err error) {
	if err := printable(s, maxText); err != nil {
		return p, false, err
	}
	s, not = strings.CutPrefix(s, "!")
	if s == "" {
		return p, not, errEmpty
	}
	if s == "*" {
		return pattern{ended: true}, not, nil
	}
	s, p.open = strings.CutPrefix(s, "*")
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`*!\`, s[i+1]) >= 0:
			i++
			text.WriteByte(s[i])
		case c == '\\':
			return p, not, errBackslash
		case c == '*' && i == len(s)-1 && text.Len() > 0:
			p.ended = true
		case c == '*':
			return p, not, errStar
		default:
			text.WriteByte(c)
		}
	}
	p.text = text.String()
	return p, not, nil
}

// maxText is the longest text in a rule that is not an expression.
const maxText = 255

// printable refuses texts that no operator means.
func printable(s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("is longer than %d bytes", most)
	}
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("has a control character, %U", r)
		}
	}
	return nil
}

// words are the values of one selector.
type words struct {
	exact map[string]struct{} // when there are many
	some  []pattern
	not   []pattern
}

// fewWords are compared one by one; more are looked up.
const fewWords = 4

// newWords reads the values of a selector; like says how they are written.
func newWords(field string, values []string, like func(string) string) (*words, error) {
	w := &words{}
	var errs []error
	for i, v := range values {
		p, not, err := parsePattern(v)
		if err != nil {
			errs = append(errs, fieldError(field, i, v, err))
			continue
		}
		if like != nil {
			p.text = like(p.text)
		}
		if not {
			w.not = append(w.not, p)
		} else {
			w.some = append(w.some, p)
		}
	}
	errs = append(errs, checkCount(field, len(values), maxValues)...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(w.some) > fewWords {
		w.exact = make(map[string]struct{})
		w.some = slices.DeleteFunc(w.some, func(p pattern) bool {
			if p.exact() {
				w.exact[p.text] = struct{}{}
			}
			return p.exact()
		})
	}
	return w, nil
}

// keys are the texts of which one must be in a part for a value to match, or
// none if there is no telling.
func (w *words) keys(part part) []key {
	var out []key
	for _, p := range w.some {
		switch {
		case p.open && p.ended, p.text == "":
			return nil
		case p.open:
			out = append(out, key{form: end, part: part, text: p.text})
		case p.ended:
			out = append(out, key{form: beginning, part: part, text: p.text})
		default:
			out = append(out, key{form: whole, part: part, text: p.text})
		}
	}
	for text := range w.exact {
		out = append(out, key{form: whole, part: part, text: text})
	}
	return out
}

// letters are those that every value has.
func (w *words) letters() uint64 {
	all := ^uint64(0)
	for _, list := range [][]pattern{w.some, w.not} {
		for _, p := range list {
			all &= letters(p.text)
		}
	}
	for text := range w.exact {
		all &= letters(text)
	}
	return all
}

// match reports whether s is one of the values and none of the negated ones.
func (w *words) match(s string) bool { return !w.refuses(s) && (w.open() || w.has(s)) }

// match2 is match for a thing with two names.
func (w *words) match2(a, b string) bool {
	return !w.refuses(a) && !w.refuses(b) && (w.open() || w.has(a) || w.has(b))
}

// open reports that there are only negated values.
func (w *words) open() bool { return len(w.some) == 0 && w.exact == nil }

func (w *words) has(s string) bool {
	for i := range w.some {
		if w.some[i].match(s) {
			return true
		}
	}
	if w.exact != nil {
		_, ok := w.exact[s]
		return ok
	}
	return false
}

func (w *words) refuses(s string) bool {
	for i := range w.not {
		if w.not[i].match(s) {
			return true
		}
	}
	return false
}
