package demo_test

import (
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/demo"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

func TestCalls_areWhatTheySay(t *testing.T) {
	end := time.Now()
	calls := demo.Calls(end, "x")
	if len(calls) != 4 {
		t.Fatalf("%d calls, want 4", len(calls))
	}
	for _, c := range calls {
		var last time.Time
		for i, m := range c.Messages {
			var s sipmsg.Message
			sipmsg.Scan(&s, m.Payload)
			if got := string(s.CallID.Of(m.Payload)); got != c.ID {
				t.Errorf("%s, message %d: Call-ID %q, want %q", c.What, i, got, c.ID)
			}
			if m.Time.Before(last) || m.Time.After(end) {
				t.Errorf("%s, message %d: at %v, want between %v and %v", c.What, i, m.Time, last, end)
			}
			last = m.Time
			if c.What != "a broken request from a scanner" && !s.Complete() {
				t.Errorf("%s, message %d: is not complete: %v", c.What, i, s.Flags)
			}
			b, err := m.AppendHEP(nil)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := hep.Decode(b); err != nil || string(p.Payload) != string(m.Payload) {
				t.Errorf("%s, message %d: HEP does not carry it: %v", c.What, i, err)
			}
		}
	}
}
