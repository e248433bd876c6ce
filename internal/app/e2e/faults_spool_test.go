package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// syncBound is how old the newest event in the spool may be: it is written
// every 200 ms, which the disk and a busy machine take their time for.
const syncBound = 5 * time.Second

func TestFaults_tapKilledWhileItsSpoolHoldsEvents(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, fmt.Sprintf("NATS: away %v, tap with a spool: kill -9 meanwhile, started again", faultScale().away), nats, d,
		"--data", t.TempDir())
	tr.startWriter()
	tr.begin()
	nats.stop()
	tr.wait(tr.scale.away / 2)
	tr.await("the spool holds events", func(context.Context) bool {
		return tr.tap.metric(t, "siptrace_tap_spooled_events_total") > 0
	})
	spooled := tr.tap.metric(t, "siptrace_tap_spooled_events_total")
	killed := time.Now()
	tr.tap.kill(t)
	tr.startTap()
	tr.wait(tr.scale.away / 2)
	nats.start(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.exact(o)
	oldest := time.Duration(0)
	for _, id := range missing(tr.ids(), streamed(t, nats)) {
		oldest = max(oldest, killed.Sub(id.Time()))
	}
	if oldest > syncBound {
		t.Errorf("an event %v older than the kill is missing, want none older than %v: the spool had it", oldest, syncBound)
	}
	tr.report(o, "of %.0f events in the spool none is missing; lost is what came in the last %d ms before the kill and was not on disk yet",
		spooled, oldest.Milliseconds())
}

func TestFaults_spoolTooSmall(t *testing.T) {
	away := min(2*faultScale().away, 20*time.Second)
	behaviours := []string{"drop-oldest"}
	if fullFaults() {
		behaviours = append(behaviours, "drop-newest")
	}
	for _, full := range behaviours {
		t.Run(full, func(t *testing.T) {
			brief(t)
			d, nats := database(t), startNATS(t)
			tr := try(t, fmt.Sprintf("NATS: away %v, spool of 4 MiB, %s", away, full), nats, d,
				"--data", t.TempDir(), "--spool-size", "4MiB", "--spool-full", full, "--buffer", "1MiB", "--compress", "none")
			tr.alone = true
			tr.flood()
			tr.startWriter()
			tr.begin()
			nats.stop()
			tr.wait(away)
			nats.start(t)
			tr.cure()
			tr.finish()
			o := tr.census()
			tr.exact(o)
			if o.before == 0 {
				t.Error("nothing was dropped: the test proves nothing")
			}
			givenUp := tr.tap.metric(t, "siptrace_tap_spool_dropped_events_total")
			overflow := tr.tap.metric(t, "siptrace_tap_events_overflow_total")
			if givenUp+overflow != float64(o.before) {
				t.Errorf("the tap has counted %v and %v dropped events, %d are missing", givenUp, overflow, o.before)
			}
			tr.report(o, "siptrace_tap_spool_dropped_events_total says %.0f, siptrace_tap_events_overflow_total %.0f", givenUp, overflow)
		})
	}
}

// missing are the events that are not in the stream.
func missing(sent map[trace.ID]bool, stream map[trace.ID]int) []trace.ID {
	var ids []trace.ID
	for id := range sent {
		if stream[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}
