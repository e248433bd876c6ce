package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// frameEvents are the events in a message of the stream. It is read here and not
// by the bus, for the bus is what is tested.
func frameEvents(header nats.Header, body []byte) ([]trace.Event, error) {
	if header.Get(bus.HeaderEncoding) == "s2" {
		var err error
		if body, err = s2.Decode(nil, body); err != nil {
			return nil, err
		}
	}
	var d trace.FrameDecoder
	return d.Decode(body)
}

// frameIDs are the ids of the events in a message of the stream.
func frameIDs(header nats.Header, body []byte) ([]trace.ID, error) {
	events, err := frameEvents(header, body)
	if err != nil {
		return nil, err
	}
	ids := make([]trace.ID, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	return ids, nil
}

// streamed counts the events that are in the stream.
func streamed(t *testing.T, n natsBox) map[trace.ID]int {
	t.Helper()
	times := make(map[trace.ID]int)
	eachStreamed(t, n, func(e *trace.Event) { times[e.ID]++ })
	return times
}

// eachStreamed calls do for every event of the stream. A server that is just
// finding its place in a cluster may have to be asked again.
func eachStreamed(t *testing.T, n natsBox, do func(*trace.Event)) {
	t.Helper()
	js := jetStream(t, n)
	last := streamState(t.Context(), t, js).LastSeq
	deadline := time.Now().Add(patience)
	for seq := uint64(0); seq < last; {
		read, err := readFrames(t, js, seq, last, do)
		if err != nil && time.Now().After(deadline) {
			t.Fatalf("frame behind %d of %d: %v", read, last, err)
		}
		seq = read
	}
}

// readFrames calls do for the events in the frames behind one, and returns up to
// which frame it has come.
func readFrames(t *testing.T, js jetstream.JetStream, seq, last uint64, do func(*trace.Event)) (uint64, error) {
	t.Helper()
	cons, err := js.OrderedConsumer(t.Context(), bus.StreamName, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: seq + 1,
	})
	if err != nil {
		return seq, err
	}
	for seq < last {
		batch, err := cons.Fetch(int(min(last-seq, 500)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return seq, err
		}
		for msg := range batch.Messages() {
			md, err := msg.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			seq = md.Sequence.Stream
			events, err := frameEvents(msg.Headers(), msg.Data())
			if err != nil {
				t.Fatalf("frame %d: %v", seq, err)
			}
			for i := range events {
				do(&events[i])
			}
		}
		if err := batch.Error(); err != nil {
			return seq, err
		}
	}
	return seq, nil
}

// ids counts the rows of each event.
func (d *db) ids(t *testing.T) map[trace.ID]int {
	t.Helper()
	times, err := rowIDs(t.Context(), d.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	return times
}

// A querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func rowIDs(ctx context.Context, q querier) (map[trace.ID]int, error) {
	rows, err := q.Query(ctx, "SELECT event_id FROM sip_trace")
	if err != nil {
		return nil, err
	}
	times := make(map[trace.ID]int)
	var id [16]byte
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
		times[id]++
		return nil
	})
	return times, err
}

// has reports whether an event is stored.
func (d *db) has(ctx context.Context, id trace.ID) (bool, error) {
	if d.conn == nil {
		c, err := pgx.Connect(ctx, d.url)
		if err != nil {
			return false, err
		}
		d.conn = c
	}
	var yes bool
	err := d.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM sip_trace WHERE time_stamp >= $1 AND time_stamp < $2 AND event_id = $3)",
		id.Time(), id.Time().Add(time.Second), [16]byte(id)).Scan(&yes)
	if err != nil {
		d.disconnect()
	}
	return yes, err
}

// equal fails the test unless two tables hold the same events.
func equal(t *testing.T, what string, got, want map[trace.ID]int) {
	t.Helper()
	missing, extra := 0, 0
	for id, n := range want {
		missing += max(0, n-got[id])
	}
	for id, n := range got {
		extra += max(0, n-want[id])
	}
	if missing > 0 || extra > 0 {
		t.Errorf("%s: %d rows, want %d: %d missing, %d too many", what, len(got), len(want), missing, extra)
	}
}
