package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A row in the middle of the batch is held up, so that the connection is cut
// when half of the COPY has gone in.
func TestWrite_cutInTheMiddleOfACopy(t *testing.T) {
	server := ownServer(t)
	address := server.URL()
	applySchema(t, address)
	execute(t, address, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF new.callid = 'wait@here' THEN PERFORM pg_advisory_xact_lock(77); END IF; RETURN new; END $$;
		CREATE TRIGGER wait BEFORE INSERT ON sip_trace FOR EACH ROW EXECUTE FUNCTION wait()`)
	s := openStore(t, address, store.Options{})
	traffic := storetest.NewTraffic(3, time.Now().Add(-time.Hour))
	var all []trace.Event
	for _, way := range []struct {
		name, waits string
		repeats     int // events that are there already, which takes the careful way
	}{{"straight", "COPY %", 0}, {"careful", "INSERT INTO %", 300}} {
		for _, end := range []struct {
			name string
			cut  func(t *testing.T, pid string)
		}{
			{"the connection", func(t *testing.T, pid string) { execute(t, address, `SELECT pg_terminate_backend(`+pid+`)`) }},
			{"the server", func(t *testing.T, _ string) {
				if err := errors.Join(server.Kill(), server.Restart()); err != nil {
					t.Fatal(err)
				}
			}},
		} {
			t.Run(way.name+" by the end of "+end.name, func(t *testing.T) {
				events := append(traffic.Events(2000), at(today()))
				events = append(events, traffic.Events(2000)...)
				held := &events[2000]
				held.Payload = fmt.Appendf(nil, "OPTIONS sip:a@b SIP/2.0\r\nCall-ID: wait@here\r\nCSeq: %d OPTIONS\r\n\r\n", len(all)+1)
				held.Identify()
				before := events[:way.repeats]
				if len(before) > 0 {
					write(t, s, before...)
				}
				holder := session(t, address, `SELECT pg_advisory_xact_lock(77)`)
				result := make(chan error, 1)
				go func() { result <- s.Write(t.Context(), events) }()
				pid := waiting(t, address, way.waits)
				end.cut(t, pid)
				var e *postgres.Error
				if err := <-result; !errors.As(err, &e) || e.Class != store.ClassConnection {
					t.Fatalf("Write = %v, want the connection lost", err)
				}
				_ = holder.Close(t.Context())
				wantRows(t, address, len(all)+len(before))
				writeUntilSafe(t, s, events)
				all = append(all, events...)
				wantRows(t, address, len(all))
			})
		}
	}
	t.Run("again and again, wherever it is", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 40 {
				events := traffic.Events(500)
				writeUntilSafe(t, s, events)
				all = append(all, events...)
			}
		}()
		cut := 0
		for end := false; !end; {
			select {
			case <-done:
				end = true
			default:
				n := column(t, address, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))::text FROM pg_stat_activity
					WHERE application_name = 'siptrace' AND state <> 'idle'`)
				if n[0] != "0" {
					cut++
				}
			}
		}
		if cut == 0 {
			t.Error("nothing was cut: the test proves nothing")
		}
		wantRows(t, address, len(all))
	})
	missing := 0
	found := make(map[trace.ID]bool)
	for e, err := range s.Find(t.Context(), trace.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		found[e.ID] = true
	}
	for i := range all {
		if !found[all[i].ID] {
			missing++
		}
	}
	if missing > 0 || len(found) != len(all) {
		t.Errorf("%d events of %d are missing, %d found", missing, len(all), len(found))
	}
}

// wantRows counts past the store.
func wantRows(t *testing.T, address string, want int) {
	t.Helper()
	if got := strings.Join(column(t, address, `SELECT count(*)::text FROM sip_trace`), ""); got != fmt.Sprint(want) {
		t.Errorf("%s rows, want %d", got, want)
	}
}
