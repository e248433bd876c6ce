package e2e

import (
	"syscall"
	"testing"
)

func TestFaults_tapKilled(t *testing.T) {
	d, nats := database(t), startNATS(t)
	tr := try(t, "tap: kill -9, started again", nats, d)
	tr.startWriter()
	tr.begin()
	tr.tap.signal(t, syscall.SIGKILL)
	tr.tap.wait(t)
	tr.startTap()
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.exact(o)
	if tr.breaks == 0 {
		t.Error("no connection broke: the test proves nothing")
	}
	tr.report(o, "what the kernel and the tap's memory held is lost; all of the stream is stored")
}

func TestFaults_writerKilled(t *testing.T) {
	d, nats := database(t), startNATS(t)
	tr := try(t, "db-writer: kill -9, started again", nats, d)
	victim := tr.startWriter()
	tr.begin()
	victim.signal(t, syscall.SIGKILL)
	victim.wait(t)
	heir := tr.startWriter()
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "%.0f frames that it held came again", heir.metric(t, "siptrace_consumer_redelivered_frames_total"))
}

func TestFaults_writersComeAndGo(t *testing.T) {
	d, nats := database(t), startNATS(t)
	tr := try(t, "db-writers: 1, 4, 1 (SIGTERM)", nats, d)
	first := tr.startWriter()
	tr.begin()
	rest := []*process{tr.startWriter(), tr.startWriter(), tr.startWriter()}
	for _, w := range rest {
		w.ready(t)
	}
	eventually(t, "all four write", func() bool {
		for _, w := range append(rest, first) {
			if written(t, w) == 0 {
				return false
			}
		}
		return true
	})
	share := written(t, first)
	first.stop(t)
	rest[0].stop(t)
	rest[1].stop(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	if n := rest[2].metric(t, "siptrace_consumer_redelivered_frames_total"); n > 0 {
		t.Errorf("the writer that stayed was given %v frames that others had taken, want none: they were asked to end", n)
	}
	tr.report(o, "all shared the work (the first had written %.0f when the others had begun); none left anything behind", share)
}
