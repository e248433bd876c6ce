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
