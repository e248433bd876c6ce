package sipgotap

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// parsed is a message as a handler of sipgo gets it.
func parsed(t *testing.T, b []byte) sip.Message {
	t.Helper()
	m, err := sip.ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// withBranch is a message on another leg.
func withBranch(b []byte, branch string) []byte {
	head, rest, _ := strings.Cut(string(b), ";branch=")
	_, tail, _ := strings.Cut(rest, "\r\n")
	return []byte(head + ";branch=" + branch + "\r\n" + tail)
}

func TestMessage_reachesAsFarAsItsScope(t *testing.T) {
	invite := request("INVITE", "call", 1, 0)
	traffic := []struct {
		name string
		b    []byte
	}{
		{"the message", invite},
		{"the same again", invite},
		{"the other leg", withBranch(invite, "z9hG4bK-other")},
		{"a response", response(invite, "180 Ringing")},
		{"a response of the other leg", response(withBranch(invite, "z9hG4bK-other"), "200 OK")},
		{"its ACK", request("ACK", "call", 1, 0)},
		{"its CANCEL", request("CANCEL", "call", 1, 0)},
		{"the next request", request("BYE", "call", 2, 0)},
		{"a request from the other side", []byte(strings.Replace(string(request("BYE", "call", 1, 0)), "from-call", "to", 1))},
		{"another call", request("INVITE", "other", 1, 0)},
	}
	tests := []struct {
		scope Scope
		want  []string
	}{
		{Message, []string{"the message", "the same again"}},
		{Transaction, []string{"the message", "the same again", "the other leg", "a response", "a response of the other leg", "its ACK", "its CANCEL"}},
		{Dialog, []string{"the message", "the same again", "the other leg", "a response", "a response of the other leg", "its ACK", "its CANCEL", "the next request", "a request from the other side"}},
	}
	for _, tt := range tests {
		for _, selective := range []bool{false, true} {
			for _, when := range []int{0, 1, len(traffic)} {
				t.Run(fmt.Sprintf("scope %d, selective %v, after %d", tt.scope, selective, when), func(t *testing.T) {
					tap := New(Options{Selective: selective})
					for i := range len(traffic) + 1 {
						if i == when {
							tap.Message(parsed(t, invite), Mark{Scope: tt.scope, Users: []string{"alice"}, Table: "t", Destinations: []string{"sip:x"}, CorrelationID: "c"})
						}
						if i < len(traffic) {
							in(tap, traffic[i].b)
						}
					}
					var got []string
					events := drain(t, tap)
					for _, e := range events {
						if len(e.TracedUsers) == 0 {
							continue
						}
						if !slices.Equal(e.TracedUsers, []string{"alice"}) || e.Table != "t" || !slices.Equal(e.Destinations, []string{"sip:x"}) || string(e.CorrelationID) != "c" {
							t.Errorf("users %q, table %q, destinations %q, correlation id %q", e.TracedUsers, e.Table, e.Destinations, e.CorrelationID)
						}
						got = append(got, nameOf(traffic[len(got):], e.Payload))
					}
					if !slices.Equal(got, tt.want) {
						t.Errorf("marked %q, want %q", got, tt.want)
					}
					all := len(traffic)
					if selective {
						all = len(tt.want)
					}
					if len(events) != all {
						t.Errorf("%d events, want %d", len(events), all)
					}
					if s := tap.Stats(); int(s.Unmarked) != len(traffic)-all {
						t.Errorf("%d let go, want %d", s.Unmarked, len(traffic)-all)
					}
				})
			}
		}
	}
}

// nameOf is the name of the first message of traffic that b is.
func nameOf(traffic []struct {
	name string
	b    []byte
}, b []byte) string {
	for _, m := range traffic {
		if bytes.Equal(m.b, b) {
			return m.name
		}
	}
	return "?"
}

func TestMessage_marksWhatIsStillToBeSent(t *testing.T) {
	tap := New(Options{Selective: true})
	unsent := sip.NewRequest(sip.OPTIONS, sip.Uri{Scheme: "sip", User: "bob", Host: "example.com"})
	callID := sip.CallIDHeader("a")
	unsent.AppendHeader(&callID)
	unsent.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.OPTIONS})
	from := sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}
	from.Params.Add("tag", "from-a")
	unsent.AppendHeader(&from)
	tap.Message(unsent, Mark{Users: []string{"alice"}}) // it has no Via yet
	out(tap, request("OPTIONS", "a", 1, 0))
	out(tap, request("OPTIONS", "a", 2, 0))
	got := drain(t, tap)
	if len(got) != 1 || !bytes.Contains(got[0].Payload, []byte("CSeq: 1 ")) {
		t.Errorf("%d events, want the one that was marked", len(got))
	}
}

func TestMessage_marksAddUp(t *testing.T) {
	tap := New(Options{})
	invite := request("INVITE", "a", 1, 0)
	in(tap, invite)
	tap.MessageBytes(invite, Mark{Scope: Dialog, Users: []string{"alice"}, Table: "dialogs", Destinations: []string{"sip:one"}})
	tap.MessageBytes(invite, Mark{Scope: Dialog, Users: []string{"bob", "alice"}, Flags: trace.NoStore})
	tap.MessageBytes(invite, Mark{Scope: Message, Users: []string{"carol"}, Table: "messages", CorrelationID: "c"})
	in(tap, request("BYE", "a", 2, 0))
	got := drain(t, tap)
	for i, want := range []string{"messages [carol bob alice] [sip:one] c", "dialogs [bob alice] [sip:one] "} {
		e := got[i]
		if s := fmt.Sprintf("%s %v %v %s", e.Table, e.TracedUsers, e.Destinations, e.CorrelationID); s != want || e.Flags != trace.NoStore {
			t.Errorf("event %d: %q flags %d, want %q and no-store", i, s, e.Flags, want)
		}
	}
}

func TestMessage_aMarkEnds(t *testing.T) {
	for _, tt := range []struct {
		mark Mark
		want time.Duration
	}{
		{Mark{Scope: Message}, 32 * time.Second},
		{Mark{Scope: Transaction}, 5 * time.Minute},
		{Mark{Scope: Dialog}, 12 * time.Hour},
		{Mark{Scope: Dialog, For: time.Second}, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			tap := New(Options{Selective: true})
			invite := request("INVITE", "a", 1, 0)
			tap.MessageBytes(invite, tt.mark)
			time.Sleep(tt.want - time.Millisecond)
			in(tap, invite)
			time.Sleep(time.Millisecond)
			in(tap, invite)
			if got := drain(t, tap); len(got) != 1 {
				t.Errorf("%+v: %d events, want 1: the mark ends after %v", tt.mark, len(got), tt.want)
			}
			if n := tap.Stats().Marks; n != 0 {
				t.Errorf("%d marks kept, want 0", n)
			}
		})
	}
}

func TestMessage_marksAreBounded(t *testing.T) {
	tap := New(Options{Selective: true, MaxMarks: 10})
	for i := range 100 {
		tap.MessageBytes(request("INVITE", fmt.Sprint(i), 1, 0), Mark{Scope: Dialog})
	}
	for i := range 100 {
		in(tap, request("BYE", fmt.Sprint(i), 2, 0))
	}
	if s := tap.Stats(); s.Marks != 10 || s.MarksEvicted != 90 {
		t.Errorf("%d marks, %d evicted, want 10 and 90", s.Marks, s.MarksEvicted)
	}
	if got := drain(t, tap); len(got) != 10 || !bytes.Contains(got[0].Payload, []byte("Call-ID: 90\r\n")) {
		t.Errorf("%d events, want the 10 of the newest marks", len(got))
	}
}

func TestMessage_withoutCallIDMarksNothingElse(t *testing.T) {
	tap := New(Options{Selective: true})
	nameless := func(branch string) []byte {
		return []byte("OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=" + branch + "\r\nContent-Length: 0\r\n\r\n")
	}
	in(tap, nameless("one"))
	in(tap, nameless("two"))
	tap.MessageBytes(nameless("one"), Mark{Scope: Dialog})
	if got := drain(t, tap); len(got) != 1 || !bytes.Equal(got[0].Payload, nameless("one")) {
		t.Errorf("%d events, want the one that was marked", len(got))
	}
}

func TestMessage_theFirstMarkFindsWhatCameBefore(t *testing.T) {
	tap := New(Options{})
	id := func(i int) string { return fmt.Sprintf("call-%d", i) }
	const old, late = 100, maxRead // so many are too old, and so many are not
	tap.Log(id(old), "before")
	for i := range old + late {
		in(tap, request("OPTIONS", id(i), 1, 0))
	}
	tap.Log(id(old), "behind")
	in(tap, request("BYE", id(old), 2, 0))
	for _, i := range []int{0, old + 3, old + late - 1, old} {
		tap.MessageBytes(request("OPTIONS", id(i), 1, 0), Mark{Scope: Dialog, Users: []string{id(i)}})
	}
	in(tap, request("BYE", id(0), 2, 0))
	marked := make(map[string]int)
	for _, e := range drain(t, tap) {
		for _, user := range e.TracedUsers {
			marked[user]++
		}
	}
	// Of the first call only what came behind the mark; of the fourth the later line and BYE.
	if want := map[string]int{id(0): 1, id(old + 3): 1, id(old + late - 1): 1, id(old): 2}; !maps.Equal(marked, want) {
		t.Errorf("marked %v, want %v", marked, want)
	}
}
