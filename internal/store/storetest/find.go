package storetest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func testFind(t *testing.T, open Open) {
	t.Run("finds by each field and by all together", func(t *testing.T) { testQueries(t, open) })
	t.Run("yields the newest when there is a limit, in time order", func(t *testing.T) {
		s := open(t, store.Options{})
		events := calls(5)
		shuffled := []trace.Event{events[3], events[0], events[4], events[2], events[1]}
		write(t, s, shuffled...)
		wantFound(t, s, trace.Query{}, events...)
		for n := 1; n <= 5; n++ {
			wantFound(t, s, trace.Query{Limit: n}, events[5-n:]...)
		}
		wantFound(t, s, trace.Query{Limit: 6}, events...)
		wantFound(t, s, trace.Query{Limit: 2, To: events[3].Time}, events[1:3]...)
		wantFound(t, s, trace.Query{Limit: -1}, events...)
	})
	t.Run("yields more than one query brings, each once and in order", func(t *testing.T) {
		s := open(t, store.Options{})
		traffic := NewTraffic(3, start())
		want := traffic.Events(1203)
		for i := range want {
			if i%4 == 0 {
				want[i].TracedUsers = []string{"alice", "bob"}
			}
		}
		write(t, s, want...)
		wantFound(t, s, trace.Query{}, want...)
		wantFound(t, s, trace.Query{Limit: 1100}, want[103:]...)
		port := trace.Query{Addr: netip.MustParsePrefix("192.0.2.17/32"), Port: 5060, Limit: 900}
		wantFound(t, s, port, want[303:]...)
		if got := len(rows(t, s, trace.Query{})); got != 1203+301*2 {
			t.Errorf("%d rows, want %d", got, 1203+301*2)
		}
	})
	t.Run("many events of one microsecond are each found once", func(t *testing.T) {
		s := open(t, store.Options{})
		var events []trace.Event
		for i := range 1100 {
			events = append(events, event(fmt.Sprintf("%d@b", i), 0))
		}
		write(t, s, events...)
		seen := make(map[trace.ID]int)
		for _, e := range find(t, s, trace.Query{}) {
			seen[e.ID]++
		}
		for _, e := range events {
			if seen[e.ID] != 1 {
				t.Fatalf("%s found %d times", e.ID, seen[e.ID])
			}
		}
	})
	t.Run("a traced user's event comes with all its users, his rows alone", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0, users("dave", "erin"))
		write(t, s, e, event("c@d", 1, users("erin")))
		wantFound(t, s, trace.Query{User: "dave"}, e)
		got := rows(t, s, trace.Query{User: "dave"})
		if len(got) != 1 || string(got[0].TracedUser) != "dave" {
			t.Errorf("rows %+v, want dave's", got)
		}
	})
	t.Run("limits rows where rows are asked for, events where events are", func(t *testing.T) {
		s := open(t, store.Options{})
		events := []trace.Event{event("a@b", 0), event("c@d", 1, users("dave", "erin"))}
		write(t, s, events...)
		wantFound(t, s, trace.Query{Limit: 1}, events[1])
		wantFound(t, s, trace.Query{Limit: 2}, events...)
		got := rows(t, s, trace.Query{Limit: 2})
		if len(got) != 2 || string(got[0].TracedUser) != "dave" || string(got[1].TracedUser) != "erin" {
			t.Errorf("%d rows, want dave's and erin's", len(got))
		}
	})
	t.Run("can be left early and begun again", func(t *testing.T) {
		s := open(t, store.Options{})
		events := calls(4)
		write(t, s, events...)
		for _, q := range []trace.Query{{}, {Limit: 4}} {
			seq := s.Find(t.Context(), q)
			for range 2 {
				for e, err := range seq {
					if err != nil || e.ID != events[0].ID {
						t.Errorf("first is %s, %v", e.ID, err)
					}
					break
				}
			}
		}
		write(t, s, event("more@b", 9)) // nothing is held up
	})
	t.Run("says which table does not exist", func(t *testing.T) {
		s := open(t, store.Options{})
		n := 0
		for _, err := range s.Find(t.Context(), trace.Query{Table: "nowhere"}) {
			n++
			if err == nil {
				t.Error("found an event")
			}
		}
		if n != 1 {
			t.Errorf("%d errors, want 1", n)
		}
	})
}

// calls makes events of n calls, one second apart.
func calls(n int) []trace.Event {
	var events []trace.Event
	for i := range n {
		events = append(events, event(fmt.Sprintf("%d@b", i), i))
	}
	return events
}

func testQueries(t *testing.T, open Open) {
	s := open(t, store.Options{})
	register := func(e *trace.Event) { e.Payload = message("reg@b", "REGISTER") }
	from := func(addr string) func(*trace.Event) {
		return func(e *trace.Event) { e.Src = netip.MustParseAddrPort(addr) }
	}
	events := []trace.Event{
		0: event("a@b", 0),
		1: event("reg@b", 1, register, from("10.1.1.1:5060")),
		2: event("a@b", 2, users("zoe"), from("10.1.12.9:5070")),
		3: event("c@d", 3, from("[2001:db8::7]:5060"), func(e *trace.Event) { e.Dst = netip.MustParseAddrPort("10.1.1.1:5070") }),
		4: event("", 4, payload([]byte("SIP/2.0 200 OK\r\nFrom: <sip:frank@b>\r\nTo: <sip:gina@b>\r\nCall-ID: a@b\r\nCSeq: 1 BYE\r\n\r\n"))),
		5: event("x%y_z'\"\\", 5, from("110.1.1.10:5060")),
	}
	write(t, s, events...)
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		name string
		q    trace.Query
		want []int
	}{
		{"nothing asked", trace.Query{}, []int{0, 1, 2, 3, 4, 5}},
		{"Call-ID", trace.Query{CallID: "a@b"}, []int{0, 2, 4}},
		{"no such Call-ID", trace.Query{CallID: "a@"}, nil},
		{"Call-ID in other letters", trace.Query{CallID: "A@B"}, nil},
		{"a wild card is none", trace.Query{CallID: "%"}, nil},
		{"odd Call-ID", trace.Query{CallID: "x%y_z'\"\\"}, []int{5}},
		{"method", trace.Query{Method: "REGISTER"}, []int{1}},
		{"CSeq method of a reply", trace.Query{Method: "BYE"}, []int{4}},
		{"From user", trace.Query{User: "frank"}, []int{4}},
		{"To user", trace.Query{User: "gina"}, []int{4}},
		{"request user", trace.Query{User: "bob"}, []int{0, 1, 2, 3, 5}},
		{"traced user", trace.Query{User: "zoe"}, []int{2}},
		{"no such user", trace.Query{User: "zo"}, nil},
		{"times", trace.Query{From: events[1].Time, To: events[4].Time}, []int{1, 2, 3}},
		{"address", trace.Query{Addr: prefix("10.1.1.1/32")}, []int{1, 3}},
		{"address and port", trace.Query{Addr: prefix("10.1.1.1/32"), Port: 5070}, []int{3}},
		{"port of the other side", trace.Query{Addr: prefix("198.51.100.2/32"), Port: 5060}, nil},
		{"port alone", trace.Query{Port: 5070}, []int{2, 3}},
		{"prefix of whole octets", trace.Query{Addr: prefix("10.1.0.0/16")}, []int{1, 2, 3}},
		{"prefix within an octet", trace.Query{Addr: prefix("10.1.8.0/21")}, []int{2}},
		{"short prefix", trace.Query{Addr: prefix("96.0.0.0/3")}, []int{5}},
		{"every IPv4 address", trace.Query{Addr: prefix("0.0.0.0/0")}, []int{0, 1, 2, 3, 4, 5}},
		{"IPv4 written as IPv6", trace.Query{Addr: prefix("::ffff:10.1.1.1/128")}, []int{1, 3}},
		{"IPv6 prefix", trace.Query{Addr: prefix("2001:db8::/32")}, []int{3}},
		{"IPv6 prefix and Call-ID", trace.Query{Addr: prefix("2001:db8::/32"), CallID: "a@b"}, nil},
		{"all at once", trace.Query{From: events[0].Time, To: events[3].Time, CallID: "a@b", User: "zoe", Method: "INVITE",
			Addr: prefix("10.0.0.0/8"), Port: 5070, Table: store.DefaultTable, Limit: 3}, []int{2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []trace.ID
			for _, i := range tt.want {
				want = append(want, events[i].ID)
			}
			for range 2 { // with a limit, the search goes the other way round
				var got []trace.ID
				for _, e := range find(t, s, tt.q) {
					got = append(got, e.ID)
				}
				if !slices.Equal(got, want) {
					t.Errorf("limit %d: found %v, want %v", tt.q.Limit, got, want)
				}
				tt.q.Limit = 100
			}
		})
	}
}
