package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Refused runs the part of the suite that is about rows which a database
// refuses, for databases that have several ways to do so.
func Refused(t *testing.T, open Open) {
	const poison = "poison@b"
	for _, batch := range []struct {
		name  string
		calls []string
		want  []int
	}{
		{"alone", []string{poison}, []int{0}},
		{"first", []string{poison, "a", "b", "c"}, []int{0}},
		{"last", []string{"a", "b", "c", poison}, []int{3}},
		{"in the middle", []string{"a", "b", poison, "c", "d"}, []int{2}},
		{"side by side", []string{"a", poison, poison, "b"}, []int{1, 2}},
		{"all of them", []string{poison, poison, poison}, []int{0, 1, 2}},
	} {
		t.Run("a row that the database refuses takes no other with it: "+batch.name, func(t *testing.T) {
			s := open(t, store.Options{})
			s.Refuse(t, store.DefaultTable, poison)
			var events, good []trace.Event
			for i, id := range batch.calls {
				e := event(id, i)
				events = append(events, e)
				if id != poison {
					good = append(good, e)
				}
			}
			for range 2 { // the second time, all others are there already
				rejected := writeRefused(t, s, events...)
				wantRefused(t, rejected, store.Refused, batch.want...)
				if !errors.Is(rejected, trace.ErrPermanent) || rejected[0].Err == nil {
					t.Errorf("rejected with %v, want the database's words", rejected[0].Err)
				}
				wantFound(t, s, trace.Query{}, good...)
			}
		})
	}
	t.Run("many rows that the database refuses take no other with them", func(t *testing.T) {
		s := open(t, store.Options{})
		s.Refuse(t, store.DefaultTable, poison)
		var events []trace.Event
		var want []int
		for i := range 600 {
			id := fmt.Sprintf("%d@b", i)
			if i%7 == 3 {
				id = poison
				want = append(want, i)
			}
			events = append(events, event(id, i))
		}
		wantRefused(t, writeRefused(t, s, events...), store.Refused, want...)
		if got := len(rows(t, s, trace.Query{})); got != len(events)-len(want) {
			t.Errorf("%d rows, want %d", got, len(events)-len(want))
		}
	})
	t.Run("an event of several rows is refused once", func(t *testing.T) {
		s := open(t, store.Options{})
		s.Refuse(t, store.DefaultTable, poison)
		wantRefused(t, writeRefused(t, s, event("a@b", 0, users("x", "y")), event(poison, 1, users("x", "y")), event("c@d", 2)), store.Refused, 1)
		if got := len(rows(t, s, trace.Query{})); got != 4 {
			t.Errorf("%d rows, want 4", got)
		}
	})
	t.Run("a refused row of one table holds up no other table", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Schema.CreateTable(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		s.Refuse(t, "other", poison)
		wantRefused(t, writeRefused(t, s, event("a@b", 0), event(poison, 1, inTable("other")), event(poison, 2),
			event("c@d", 3, inTable("other"))), store.Refused, 1)
		if got := len(rows(t, s, trace.Query{})); got != 2 {
			t.Errorf("%d rows in sip_trace, want 2", got)
		}
		if got := len(rows(t, s, trace.Query{Table: "other"})); got != 1 {
			t.Errorf("%d rows in other, want 1", got)
		}
	})
}
