package ctl

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

func TestStreamApply_showsTheDifferencesAndMakesThemWhenTold(t *testing.T) {
	b := newBed(t)
	args := []string{"stream", "apply", "--max-age", "7d", "--max-size", "512MiB", "--compression", "s2"}
	code, out, said := b.ctl(t, args...)
	if code != app.ExitFailed {
		t.Errorf("exit %d without --yes, want %d", code, app.ExitFailed)
	}
	contains(t, out, "stream SIPTRACE: max age from 48h0m0s to 168h0m0s")
	contains(t, out, "to 512 MiB")
	contains(t, said, "nothing was changed; do it with --yes")
	if st, err := b.conn.StreamStatus(t.Context()); err != nil || st.MaxAge != bus.DefaultMaxAge {
		t.Errorf("max age %v, %v before anybody said yes", st.MaxAge, err)
	}

	_, said = b.must(t, append(args, "--yes")...)
	contains(t, said, "3 changes made")
	if st, err := b.conn.StreamStatus(t.Context()); err != nil || st.MaxAge != 7*24*time.Hour || st.MaxBytes != 512<<20 {
		t.Errorf("stream keeps %v and %d bytes, %v, want 7 days and 512 MiB", st.MaxAge, st.MaxBytes, err)
	}
	_, said = b.must(t, args...)
	contains(t, said, "everything is as wanted")

	out, _ = b.must(t, "stream", "apply", "--durable", "db-writer", "--durable", "other", "--yes")
	contains(t, out, "durable consumer db-writer: will be made", "durable consumer other: will be made")
	if all, err := b.conn.Consumers(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("Consumers = %v, %v, want two", all, err)
	}
	_, said = b.must(t, "stream", "apply", "--durable", "db-writer")
	contains(t, said, "everything is as wanted")
}

func TestStreamApply_refusesInPlainWords(t *testing.T) {
	b := newBed(t)
	for _, tt := range []struct {
		args, want string
		code       int
	}{
		{"--storage memory --yes", "storage cannot be changed from File to Memory: only a stream that is made anew can have another", app.ExitFailed},
		{"--replicas 3 --yes", "3 replicas need a cluster of as many servers, and this server is alone", app.ExitFailed},
		{"--max-age 1m --yes", "less than the duplicate window", app.ExitFailed},
		{"--replicas 9", "9 replicas: 1 to 5", app.ExitFailed},
		{"--compression zip", `must be one of`, app.ExitUsage},
	} {
		code, out, said := b.ctl(t, append([]string{"stream", "apply"}, strings.Fields(tt.args)...)...)
		if code != tt.code {
			t.Errorf("%s: exit %d, want %d", tt.args, code, tt.code)
		}
		contains(t, out+said, tt.want)
	}
}

func TestStreamStatus_showsLimitsFillAndConsumers(t *testing.T) {
	b := newBed(t)
	e := captured("a@pbx", "INVITE", 0)
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "test", Event: &e})
	out, _ := b.must(t, "stream", "status")
	for _, want := range []string{"SIPTRACE_REJECTS  1", "256 MiB", "KV_siptrace", "2d", "7d", "no consumer yet"} {
		contains(t, out, want)
	}
	var got streamReport
	asJSON, _ := b.must(t, "stream", "status", "--json")
	if err := json.Unmarshal([]byte(asJSON), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Streams) != 3 || got.Streams[1].Frames != 1 || got.Streams[0].Replicas != 1 || got.Streams[0].Storage != "File" {
		t.Errorf("streams are %+v", got.Streams)
	}
}

func TestStreamStatus_saysWhereCopiesAreAndWhichAreMissing(t *testing.T) {
	r := streamReport{Streams: []bus.StreamDetail{
		{
			StreamStatus: bus.StreamStatus{Name: "SIPTRACE", Frames: 7, Bytes: 5 << 30, MaxBytes: 10 << 30, MaxAge: 48 * time.Hour,
				Replicas: 3, Storage: "File", Duplicates: 2 * time.Minute},
			Compression: "None", Cluster: "east", Leader: "n1",
			Peers: []bus.Peer{{Name: "n2", Current: true, Active: 120 * time.Millisecond}, {Name: "n3", Offline: true, Active: time.Minute, Lag: 42}},
		},
		{
			StreamStatus: bus.StreamStatus{Name: "KV_siptrace", MaxBytes: -1, Replicas: 3, Storage: "File", Duplicates: 2 * time.Minute},
			Compression:  "None", Cluster: "east",
			Peers: []bus.Peer{{Name: "n2", Active: time.Second}, {Name: "n3", Offline: true, Active: time.Minute}},
		},
	}}
	var out bytes.Buffer
	if err := r.print(&out, false); err != nil {
		t.Fatal(err)
	}
	golden(t, "stream-status.txt", out.String())
}

func TestStreamApply_makesSeveralStreamsWhereThereAreNone(t *testing.T) {
	b, _ := bareBed(t, t.TempDir())
	out, said := b.must(t, "stream", "apply", "--shards", "4", "--max-size", "512MiB", "--durable", "db-writer", "--yes")
	contains(t, out, "stream SIPTRACE_0: will be made", "stream SIPTRACE_3: will be made", "durable consumer db-writer: will be made")
	contains(t, said, "7 changes made")
	if n, err := b.conn.Shards(t.Context()); err != nil || n != 4 {
		t.Errorf("%d shards, %v, want 4", n, err)
	}
	b.shards = 4
	b.publish(t, traffic(400)...)
	if s, err := b.conn.StreamStatus(t.Context()); err != nil || len(s.Shards) != 4 || s.Shards[3].Frames == 0 || s.MaxBytes != 512<<20 {
		t.Errorf("streams %+v, %v", s, err)
	}

	_, said = b.must(t, "stream", "apply", "--shards", "4", "--durable", "db-writer")
	contains(t, said, "everything is as wanted")
	code, out, _ := b.ctl(t, "stream", "apply", "--shards", "2", "--yes")
	if code != app.ExitFailed || !strings.Contains(out, "shards cannot be changed from 4 to 2") {
		t.Errorf("another number: exit %d, %s", code, out)
	}
	if code, _, said := b.ctl(t, "stream", "apply", "--shards", "65"); code != app.ExitFailed || !strings.Contains(said, "65 shards: 1 to 64") {
		t.Errorf("too many: exit %d, %s", code, said)
	}
	out, _ = b.must(t, "stream", "apply", "--max-age", "1d", "--yes")
	contains(t, out, "stream SIPTRACE_0: max age from 48h0m0s to 24h0m0s", "stream SIPTRACE_3: max age")

	// A consumer that is missing in one of the streams is seen, and made.
	if err := jetStream(t, b).DeleteConsumer(t.Context(), "SIPTRACE_2", "db-writer"); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"status", "--interval", "1ms"}, {"stream", "status"}} {
		out, _ = b.must(t, command...)
		contains(t, out, "consumer db-writer: there in 3 of 4 streams")
	}
	b.must(t, "stream", "apply", "--durable", "db-writer", "--yes")
	out, _ = b.must(t, "status", "--interval", "1ms")
	if strings.Contains(out, "of 4 streams") {
		t.Errorf("status says\n%s", out)
	}
}

func TestStatus_ofSeveralStreams(t *testing.T) {
	b := newShardedBed(t, 4)
	b.publish(t, traffic(1000)...)
	b.work(t, "sqlite:"+t.TempDir()+"/x.db", "db-writer")
	b.publish(t, traffic(3000)[1000:]...)
	out, _ := b.must(t, "status", "--interval", "1ms")
	contains(t, out, " frames in 4 streams, ", "db-writer  ")

	lost := uint64(0)
	for _, name := range []string{"SIPTRACE_0", "SIPTRACE_3"} {
		s, err := jetStream(t, b).Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Consumer(t.Context(), "db-writer")
		if err != nil {
			t.Fatal(err)
		}
		delivered, last := c.CachedInfo().Delivered.Stream, s.CachedInfo().State.LastSeq
		full := s.CachedInfo().Config
		full.MaxMsgs = 1
		if _, err := jetStream(t, b).UpdateStream(t.Context(), full); err != nil {
			t.Fatal(err)
		}
		lost += last - delivered - 1
	}
	for _, command := range [][]string{{"status", "--interval", "1ms"}, {"stream", "status"}} {
		out, _ = b.must(t, command...)
		contains(t, out, "consumer db-writer: "+count(lost)+" frames were discarded before it had read them")
	}
}

func TestTail_ofSeveralStreams(t *testing.T) {
	b := newShardedBed(t, 4)
	events := calls()
	b.publish(t, events...)
	for range 10 {
		out, _ := b.must(t, "tail", "--since", "1h", "--json", "-n", "7")
		if n := strings.Count(out, "\n"); n != 7 {
			t.Fatalf("%d messages, want 7", n)
		}
	}
	out, _ := b.must(t, "tail", "--since", "1h", "--json", "-n", "2000")
	got, _ := eventIDs(t, out)
	sameSet(t, "messages", got, idsOf(events))
	last := make(map[string]string)
	for line := range strings.Lines(out) {
		var v struct{ CallID, Time string }
		if err := json.Unmarshal([]byte(strings.Replace(line, "time_stamp", "time", 1)), &v); err != nil {
			t.Fatal(err)
		}
		if v.CallID == "" || v.Time <= last[v.CallID] {
			t.Fatalf("call %q: %s came behind %s", v.CallID, v.Time, last[v.CallID])
		}
		last[v.CallID] = v.Time
	}
	out, _ = b.must(t, "tail", "--since", "1h", "--json", "-n", "5", "--call-id", "call-17")
	contains(t, out, `"callid":"call-17"`)
}
