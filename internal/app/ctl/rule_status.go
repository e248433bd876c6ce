package ctl

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// A ruleSum is one rule on all taps.
type ruleSum struct {
	taps     int
	revision uint64 // the newest
	matched  uint64
	errors   []string
}

// printRules shows the rules that taps have, and in red what is wrong with them.
func (r *report) printRules(w io.Writer, colour bool) error {
	taps, sums := r.sumRules()
	if len(sums) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nRULE\tREVISION\tTAPS\tMATCHED")
	names := slices.Sorted(maps.Keys(sums))
	for _, name := range names {
		s := sums[name]
		fmt.Fprintf(t, "%s\t%d\t%d/%d\t%d\n", name, s.revision, s.taps, taps, s.matched)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, name := range names {
		for _, line := range sums[name].errors {
			fmt.Fprintln(w, red("rule "+name+" is ignored by "+line, colour))
		}
	}
	return nil
}

// sumRules sums up what taps say of their rules.
func (r *report) sumRules() (taps int, sums map[string]*ruleSum) {
	sums = make(map[string]*ruleSum)
	for _, n := range r.Nodes {
		if n.Service != "tap" {
			continue
		}
		taps++
		for _, st := range n.Rules {
			s := sums[st.Name]
			if s == nil {
				s = &ruleSum{}
				sums[st.Name] = s
			}
			switch cmp.Compare(st.Revision, s.revision) {
			case 1:
				s.revision, s.taps = st.Revision, 0
			case -1:
				continue // this tap has not got the newest yet
			}
			s.matched += st.Matched
			if st.Error != "" {
				s.errors = append(s.errors, n.Name+": "+oneLine(st.Error))
				continue
			}
			s.taps++
		}
	}
	return taps, sums
}
