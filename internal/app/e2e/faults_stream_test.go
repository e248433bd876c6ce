package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// eventsOf are n events of our own making.
func eventsOf(n int) []trace.Event {
	events := make([]trace.Event, n)
	var names trace.Names
	for i := range events {
		p := invite(i)
		trace.FromHEP(&events[i], &p, &names)
		events[i].Identify()
	}
	return events
}

// publish puts events into the stream without a tap, as other programs may.
func publish(t *testing.T, js jetstream.JetStream, events []trace.Event) {
	t.Helper()
	const perFrame = 50
	for len(events) > 0 {
		n := min(perFrame, len(events))
		var body []byte
		for i := range events[:n] {
			var err error
			if body, err = trace.AppendEvent(body, &events[i]); err != nil {
				t.Fatal(err)
			}
		}
		msg := &nats.Msg{Subject: bus.EventsSubject + ".0.other", Data: body,
			Header: nats.Header{bus.HeaderFrame: {"1"}, jetstream.MsgIDHeader: {events[0].ID.String()}}}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
		events = events[n:]
	}
}

func TestFaults_poisonousEventTakesNoNeighbourWithIt(t *testing.T) {
	brief(t)
	const n, poison = 5000, 2718
	d, nats := database(t), startNATS(t)
	tr := try(t, "one poisonous event in 5,000 (unknown table)", nats, d)
	tr.startWriter().ready(t)
	js := nats.stream(t)
	events := eventsOf(n)
	events[poison].Table = "nowhere"
	began := time.Now()
	publish(t, js, events)
	d.holds(t, n-1)
	worked(t, nats)
	tr.caught = time.Since(began)
	tr.back = tr.caught

	sent := make(map[trace.ID]bool)
	for i := range events {
		sent[events[i].ID] = true
	}
	o := tally(sent, streamed(t, nats), d.ids(t))
	if o.after != 1 || o.double > 0 || o.before > 0 || o.strange > 0 {
		t.Errorf("%d events are missing, %d stored twice, want one missing", o.after, o.double)
	}
	rejects, err := js.Stream(t.Context(), bus.RejectsStreamName)
	if err != nil {
		t.Fatal(err)
	}
	if got := rejects.CachedInfo().State.Msgs; got != 1 {
		t.Fatalf("%d rejects, want 1", got)
	}
	msg, err := rejects.GetMsg(t.Context(), rejects.CachedInfo().State.FirstSeq)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := msg.Header.Get(bus.HeaderReason), "unknown table"; got != want {
		t.Errorf("the reject's reason is %q, want %q", got, want)
	}
	ids, err := frameIDs(msg.Header, msg.Data)
	if err != nil || len(ids) != 1 || ids[0] != events[poison].ID {
		t.Errorf("the reject holds %v, error %v, want the poisonous event", ids, err)
	}

	must(t, "ctl", "schema", "create-table", "nowhere", "--store", d.url)
	must(t, "ctl", "reject", "retry", "--nats", nats.url(), "--to", d.url)
	elsewhere := 0
	if err := d.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM nowhere WHERE event_id = $1", [16]byte(events[poison].ID)).Scan(&elsewhere); err != nil {
		t.Fatal(err)
	}
	info, err := rejects.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if elsewhere != 1 || info.State.Msgs != 0 {
		t.Errorf("after ctl reject retry the event is stored %d times and %d rejects are left, want once and none", elsewhere, info.State.Msgs)
	}
	tr.report(o, "it was in the rejects with its reason; ctl reject retry stored it when its table was there")
}

func TestFaults_replay(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, "database wiped, ctl replay of the whole stream, twice", nats, d)
	tr.startWriter()
	tr.begin()
	tr.finish()
	before := d.ids(t)
	replay := func() { must(t, "ctl", "replay", "--nats", nats.url(), "--to", d.url) }

	execute(t, d.url, "TRUNCATE sip_trace")
	began := time.Now()
	replay()
	tr.caught = time.Since(began)
	tr.back = tr.caught
	equal(t, "replayed into an empty table", d.ids(t), before)
	replay()
	equal(t, "replayed twice", d.ids(t), before)
	execute(t, d.url, "DELETE FROM sip_trace WHERE random() < 0.5")
	if n := d.count(t); n == 0 || n == len(before) {
		t.Fatalf("%d of %d rows are left: the test proves nothing", n, len(before))
	}
	replay()
	equal(t, "replayed around the rows that were left", d.ids(t), before)
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the table is the one before, id by id; also with half of the rows deleted at random")
}

// overheard are the frames that were published, heard beside the stream.
func overheard(t *testing.T, nats *natsServer) func() [][]trace.ID {
	t.Helper()
	js := nats.stream(t)
	sub, err := js.Conn().SubscribeSync(bus.EventsSubject + ".>")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	if err := js.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	return func() [][]trace.ID {
		var frames [][]trace.ID
		for {
			n, _, err := sub.Pending()
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				return frames
			}
			msg, err := sub.NextMsg(time.Second)
			if err != nil {
				t.Fatal(err)
			}
			ids, err := frameIDs(msg.Header, msg.Data)
			if err != nil {
				t.Fatal(err)
			}
			frames = append(frames, ids)
		}
	}
}

func TestFaults_streamDiscardsWhatWasNotRead(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	size := int64(4 << 20) // seconds of the load
	if fullFaults() {
		size = 128 << 20
	}
	makeSmallStream(t, nats, size)
	frames := overheard(t, nats)
	tr := try(t, fmt.Sprintf("a consumer too slow for its stream of %d MiB", size>>20), nats, d, "--compress", "none")
	tr.flood()
	writer := tr.startWriter()
	tr.begin()
	lock := newDB(t, d.url)
	tx, err := lock.connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE sip_trace IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	const red = "\x1b[31m"
	status := func() string {
		return mustOnTerminal(t, "ctl", "status", "--nats", nats.url(), "--interval", "100ms")
	}
	eventually(t, "ctl status warns in red", func() bool {
		return strings.Contains(status(), red+"consumer db-writer: what it has not read is discarded in")
	})
	eventually(t, "ctl status says in red what was discarded", func() bool {
		text := status()
		return strings.Contains(text, red+"consumer db-writer: ") && strings.Contains(text, "frames were discarded before it had read them")
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.cure()
	tr.finish()
	eventually(t, "ctl status says in red that the writer has lost frames", func() bool {
		text := status()
		return strings.Contains(text, red+"db-writer ") && strings.Contains(text, " has lost ")
	})

	rows := d.ids(t)
	gone, o := 0, tally(tr.ids(), rows, rows)
	o.before = 0
	for _, ids := range frames() {
		here := 0
		for _, id := range ids {
			here += min(1, rows[id])
		}
		if here < len(ids) {
			gone++
			o.after += len(ids) - here
		}
	}
	if o.sent != o.stored+o.after || o.double > 0 || o.strange > 0 {
		t.Errorf("%d sent, %d stored, %d in frames that are missing, %d stored more than once, %d stored that were not sent",
			o.sent, o.stored, o.after, o.double, o.strange)
	}
	if gone == 0 {
		t.Error("nothing was discarded: the test proves nothing")
	}
	counted := 0.0
	tr.await("the discarded frames are counted", func(context.Context) bool {
		counted = writer.metric(t, "siptrace_stream_expired_unread_total")
		return counted >= float64(gone)
	})
	if counted != float64(gone) {
		t.Errorf("siptrace_stream_expired_unread_total is %v, %d frames are missing", counted, gone)
	}
	tr.report(o, "ctl status warned in red before and said so after; %d frames were discarded unread, siptrace_stream_expired_unread_total says %.0f",
		gone, counted)
}

// makeSmallStream makes a stream of a size.
func makeSmallStream(t *testing.T, nats *natsServer, size int64) {
	t.Helper()
	if _, err := nats.stream(t).CreateStream(t.Context(), jetstream.StreamConfig{
		Name: bus.StreamName, Subjects: []string{bus.EventsSubject + ".>"}, MaxBytes: size, Discard: jetstream.DiscardOld,
		Duplicates: 2 * time.Minute, AllowDirect: true, DenyDelete: true,
	}); err != nil {
		t.Fatal(err)
	}
}
