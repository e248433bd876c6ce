package bus_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// config returns the settings of a stream as the server has them.
func config(t *testing.T, url, stream string) jetstream.StreamConfig {
	t.Helper()
	s, err := rawJetStream(t, url).Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

func rawJetStream(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// differences are all of them, as people see them.
func differences(plans []bus.StreamPlan) []string {
	var all []string
	for _, p := range plans {
		for _, d := range p.Differences {
			all = append(all, d.String())
		}
	}
	return all
}

func TestApplyStreams_changesWhatIsNamedAndNothingElse(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{MaxBytes: 2 << 30})
	admin := rawJetStream(t, s.ClientURL())
	before := config(t, s.ClientURL(), bus.StreamName)
	before.Description, before.MaxMsgSize = "kept by somebody", 300_000
	if _, err := admin.UpdateStream(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	before = config(t, s.ClientURL(), bus.StreamName)

	plans, err := c.PlanStreams(t.Context(), bus.StreamChange{MaxAge: 7 * 24 * time.Hour, MaxBytes: 1 << 30, Compression: "s2", Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"stream SIPTRACE: max age is 48h0m0s, wanted 168h0m0s",
		"stream SIPTRACE: max bytes is 2 GiB, wanted 1 GiB",
		"stream SIPTRACE: compression is None, wanted S2",
	}
	if got := differences(plans); !reflect.DeepEqual(got, want) {
		t.Errorf("differences = %q, want %q", got, want)
	}
	if got := config(t, s.ClientURL(), bus.StreamName); !reflect.DeepEqual(got, before) {
		t.Errorf("a plan changed the stream to %+v", got)
	}
	if err := c.ApplyStreams(t.Context(), plans); err != nil {
		t.Fatal(err)
	}
	after := before
	after.MaxAge, after.MaxBytes, after.Compression = 7*24*time.Hour, 1<<30, jetstream.S2Compression
	if got := config(t, s.ClientURL(), bus.StreamName); !reflect.DeepEqual(got, after) {
		t.Errorf("stream is %+v, want %+v", got, after)
	}
	plans, err = c.PlanStreams(t.Context(), bus.StreamChange{MaxAge: 7 * 24 * time.Hour})
	if got := differences(plans); err != nil || len(got) > 0 {
		t.Errorf("differences after all is applied = %q, %v, want none", got, err)
	}
}

func TestPlanStreams_refusesWhatCannotBeChanged(t *testing.T) {
	_, c := bed(t)
	for name, tt := range map[string]struct {
		change bus.StreamChange
		want   string
	}{
		"storage":                   {bus.StreamChange{Storage: "memory"}, "storage cannot be changed from File to Memory"},
		"age below the window":      {bus.StreamChange{MaxAge: time.Minute}, "max age cannot be changed to 1m0s: that is less than the duplicate window, 2m0s"},
		"replicas without a server": {bus.StreamChange{Replicas: 3}, "3 replicas need a cluster of as many servers, and this server is alone"},
		"no room":                   {bus.StreamChange{MaxBytes: 1 << 50}, "the server has no room for 1.0 PiB"},
	} {
		t.Run(name, func(t *testing.T) {
			plans, err := c.PlanStreams(t.Context(), tt.change)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.ApplyStreams(t.Context(), plans); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ApplyStreams error = %v, want %q in it", err, tt.want)
			}
		})
	}
	for name, bad := range map[string]bus.StreamChange{
		"too many replicas": {Replicas: 6},
		"too small":         {MaxBytes: 1},
		"window too long":   {MaxAge: time.Minute, Duplicates: time.Hour},
	} {
		if _, err := c.PlanStreams(t.Context(), bad); err == nil {
			t.Errorf("%s: planned", name)
		}
	}
}

func TestApplyStreams_leavesAloneWhatWasChangedMeanwhile(t *testing.T) {
	s, c := bed(t)
	plans, err := c.PlanStreams(t.Context(), bus.StreamChange{MaxAge: 72 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	other := config(t, s.ClientURL(), bus.StreamName)
	other.MaxAge = 96 * time.Hour
	if _, err := rawJetStream(t, s.ClientURL()).UpdateStream(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if err := c.ApplyStreams(t.Context(), plans); !errors.Is(err, bus.ErrStreamMoved) {
		t.Errorf("ApplyStreams error = %v, want %v", err, bus.ErrStreamMoved)
	}
	if got := config(t, s.ClientURL(), bus.StreamName).MaxAge; got != 96*time.Hour {
		t.Errorf("max age is %v, want what was set meanwhile", got)
	}
}

func TestApplyStreams_makesWhatIsMissing(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	plans, err := c.PlanStreams(t.Context(), bus.StreamChange{MaxAge: 24 * time.Hour, Compression: "s2"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plans {
		if !p.Make {
			t.Errorf("%s is not to be made", p.Stream)
		}
	}
	if err := c.ApplyStreams(t.Context(), plans); err != nil {
		t.Fatal(err)
	}
	all, err := c.Details(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("Details = %v, %v, want three", all, err)
	}
	if all[0].MaxAge != 24*time.Hour || all[0].Compression != "S2" {
		t.Errorf("events are kept %v with compression %s, want 24h with S2", all[0].MaxAge, all[0].Compression)
	}
	diffs, err := c.EnsureStreams(t.Context(), bus.StreamConfig{MaxAge: 24 * time.Hour})
	if err != nil || len(diffs) > 0 {
		t.Errorf("EnsureStreams = %v, %v, want no difference", diffs, err)
	}
}

func TestPlanStreams_saysWhatNewLimitsDiscard(t *testing.T) {
	s, c := bed(t)
	js := rawJetStream(t, s.ClientURL())
	for range 40 {
		if _, err := js.Publish(t.Context(), bus.EventsSubject+".0.x", make([]byte, 1_000_000)); err != nil {
			t.Fatal(err)
		}
	}
	plans, err := c.PlanStreams(t.Context(), bus.StreamChange{MaxBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if got := plans[0].Discards; got < 6_000_000 || got > 7_000_000 {
		t.Errorf("discards %d bytes, want the 6.4 MB that are too much", got)
	}
}

func TestApplyStreams_changesEveryShard(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{Shards: 2, MaxBytes: 1 << 30})
	plans, err := c.PlanStreams(t.Context(), bus.StreamChange{MaxAge: 72 * time.Hour, MaxBytes: 2 << 30})
	if err == nil {
		err = c.ApplyStreams(t.Context(), plans)
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Details(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("Details = %v, %v, want two shards, rejects and bucket", all, err)
	}
	for _, d := range all[:2] {
		if d.MaxAge != 72*time.Hour || d.MaxBytes != 1<<30 {
			t.Errorf("%s keeps %v and %d bytes, want 72h and half of 2 GiB", d.Name, d.MaxAge, d.MaxBytes)
		}
	}
}
