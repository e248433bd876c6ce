package rules

import "net/netip"

// A key is a text or a network that a message must have for a rule to be asked
// at all. A rule that has keys has all of them in one selector, and need not
// be asked about a message that has none of them.
type key struct {
	form form
	part part         // where the text is; of form source or target there is none
	text string       // the whole, the beginning or the end
	net  netip.Prefix // of the source or the target
}

// A form is how a key is looked for.
type form uint8

const (
	whole form = iota
	beginning
	end
	source
	target
)

// An index finds rules by their keys. Keys of one form, part and length are
// looked up together.
type index struct {
	texts []textIndex
	nets  []netIndex
}

type textIndex struct {
	form  form
	part  part
	size  int // of the text, for beginnings and ends
	rules map[string][]int32
}

type netIndex struct {
	form  form
	bits  int
	six   bool // IPv6
	rules map[netip.Addr][]int32
}

// add notes that rule i is to be found by k. Rules come in order.
func (x *index) add(k key, i int32) {
	if k.form == source || k.form == target {
		x.addNet(k, i)
		return
	}
	size := 0
	if k.form != whole {
		size = len(k.text)
	}
	for n := range x.texts {
		if t := &x.texts[n]; t.form == k.form && t.part == k.part && t.size == size {
			t.rules[k.text] = insert(t.rules[k.text], i)
			return
		}
	}
	x.texts = append(x.texts, textIndex{k.form, k.part, size, map[string][]int32{k.text: {i}}})
}

func (x *index) addNet(k key, i int32) {
	six := k.net.Addr().Is6()
	for n := range x.nets {
		if t := &x.nets[n]; t.form == k.form && t.bits == k.net.Bits() && t.six == six {
			t.rules[k.net.Addr()] = insert(t.rules[k.net.Addr()], i)
			return
		}
	}
	x.nets = append(x.nets, netIndex{k.form, k.net.Bits(), six, map[netip.Addr][]int32{k.net.Addr(): {i}}})
}

func insert(list []int32, i int32) []int32 {
	if len(list) > 0 && list[len(list)-1] == i {
		return list
	}
	return append(list, i)
}

// find returns the rules with a key in a text of m.
func (t *textIndex) find(m *message) []int32 {
	s := m.words[t.part]
	switch {
	case t.form == whole:
	case len(s) < t.size:
		return nil
	case t.form == beginning:
		s = s[:t.size]
	default:
		s = s[len(s)-t.size:]
	}
	return t.rules[s]
}

// find returns the rules with a key that a is in.
func (t *netIndex) find(m *message) []int32 {
	a := m.event.Src.Addr()
	if t.form == target {
		a = m.event.Dst.Addr()
	}
	if a.Is6() != t.six || !a.IsValid() {
		return nil
	}
	p, err := a.WithZone("").Prefix(t.bits)
	if err != nil {
		return nil
	}
	return t.rules[p.Addr()]
}
