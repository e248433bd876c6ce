package rules

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestDialogs_areForgottenWhenSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		en := newTestEngine(t, Options{DialogIdle: time.Hour}, trace.Rule{FromUser: list("alice")})
		talk, quiet := call{"talk", "alice", "bob"}, call{"quiet", "alice", "bob"}
		selects(en, talk.message("INVITE", 0))
		selects(en, quiet.message("INVITE", 0))
		time.Sleep(40 * time.Minute)
		if !selects(en, back(talk.message("INFO", 0))) {
			t.Fatal("a call is left within its time")
		}
		time.Sleep(40 * time.Minute)
		if selects(en, back(quiet.message("BYE", 0))) {
			t.Error("a call that was silent for 80 minutes is followed")
		}
		if !selects(en, back(talk.message("BYE", 0))) {
			t.Error("a call that was silent for 40 minutes is left")
		}
		if en.dialogs.len() != 1 || en.dialogs.expired != 1 || en.dialogs.evicted != 0 {
			t.Errorf("%d followed, %d expired, %d evicted; want 1, 1, 0", en.dialogs.len(), en.dialogs.expired, en.dialogs.evicted)
		}
	})
}

func TestDialogs_aFullTableLosesWhatIsOverFirst(t *testing.T) {
	const most = 100
	en := newTestEngine(t, Options{Dialogs: most}, trace.Rule{FromUser: list("alice")})
	id := func(what string, i int) call { return call{fmt.Sprintf("%s-%d", what, i), "alice", "bob"} }
	for i := range 50 { // the oldest, and still going on
		selects(en, id("on", i).message("INVITE", 0))
		selects(en, id("on", i).message("INVITE", 200))
	}
	for i := range 50 { // younger, but over
		selects(en, id("over", i).message("INVITE", 0))
		selects(en, id("over", i).message("INVITE", 200))
		selects(en, back(id("over", i).message("BYE", 0)))
		selects(en, back(id("over", i).message("BYE", 200)))
	}
	for i := range 50 {
		selects(en, id("new", i).message("INVITE", 0))
	}
	count := func(what string) (n int) {
		for i := range 50 {
			if selects(en, back(id(what, i).message("INFO", 0))) {
				n++
			}
		}
		return n
	}
	if on, young, gone := count("on"), count("new"), count("over"); on != 50 || young != 50 || gone != 0 {
		t.Errorf("%d that go on, %d new and %d that are over are followed; want 50, 50, 0", on, young, gone)
	}
	for i := range 10 * most { // more than there is room for, none of them over
		selects(en, id("flood", i).message("INVITE", 0))
	}
	if n := en.dialogs.len(); n != most || len(en.dialogs.entries) != most {
		t.Errorf("%d followed in %d entries, want %d", n, len(en.dialogs.entries), most)
	}
	if !selects(en, back(id("flood", 10*most-1).message("BYE", 0))) || selects(en, back(id("flood", 0).message("BYE", 0))) {
		t.Error("not the one that was silent longest has gone")
	}
	if want := uint64(50 + 10*most); en.dialogs.evicted != want {
		t.Errorf("%d evicted, want %d", en.dialogs.evicted, want)
	}
}

func TestEntry_progress(t *testing.T) {
	tests := []struct {
		name     string
		messages []trace.Event
		want     phase
	}{
		{"ringing", []trace.Event{c("INVITE", 0), c("INVITE", 180)}, goingOn},
		{"talking", []trace.Event{c("INVITE", 0), c("INVITE", 200), c("ACK", 0)}, goingOn},
		{"busy", []trace.Event{c("INVITE", 0), c("INVITE", 486), c("ACK", 0)}, over},
		{"asked for a password, and again", []trace.Event{c("INVITE", 0), c("INVITE", 407), c("ACK", 0), c("INVITE", 0)}, goingOn},
		{"one branch busy, another rings", []trace.Event{c("INVITE", 0), c("INVITE", 486), c("INVITE", 180)}, goingOn},
		{"cancelled", []trace.Event{c("INVITE", 0), c("CANCEL", 0), c("CANCEL", 200), c("INVITE", 487), c("ACK", 0)}, over},
		{"ended", []trace.Event{c("INVITE", 0), c("INVITE", 200), c("BYE", 0), c("BYE", 200)}, over},
		{"asked within the call", []trace.Event{c("INVITE", 0), c("INVITE", 200), c("OPTIONS", 0), c("OPTIONS", 404)}, goingOn},
		{"registered", []trace.Event{c("REGISTER", 0), c("REGISTER", 200)}, over},
		{"registering", []trace.Event{c("REGISTER", 0), c("REGISTER", 100)}, goingOn},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("alice")})
			for _, e := range tt.messages {
				selects(en, e)
			}
			if got := en.dialogs.entries[0].phase; got != tt.want {
				t.Errorf("phase %d, want %d", got, tt.want)
			}
		})
	}
}

// c is a message of some call of alice's.
func c(method string, status int) trace.Event {
	return call{"1@a", "alice", "bob"}.message(method, status)
}
