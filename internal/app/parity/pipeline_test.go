package parity

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/capture"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// rules say of tables and users what the recorded Kamailio's script said with
// AVPs.
func rules() []trace.Rule {
	uri := func(user string) string { return "sip:" + user + "@golden.example" }
	all := []trace.Rule{
		{Name: "acme", FromUser: []string{"acme"}, Table: "sip_trace_acme"},
		{Name: "registrations", Methods: []string{"REGISTER"}, Table: "sip_trace_reg"},
		{Name: "solo", FromUser: []string{"solo"}, Users: []string{uri("solo")}},
		{Name: "multi", FromUser: []string{"multi"}, Users: []string{uri("multi")}},
	}
	for _, to := range []string{"bob", "cindy", "nobody"} {
		all = append(all, trace.Rule{Name: "multi-" + to, FromUser: []string{"multi"}, ToUser: []string{to}, Users: []string{uri(to)}})
	}
	return all
}

// Kamailio's HEP, through tap, bus and db-writer, is the rows that the same
// Kamailio wrote itself; and through hep-forwarder the same HEP again, and the
// plain-SIP duplicates that it would have sent.
func TestPipeline_comesToWhatKamailioCameTo(t *testing.T) {
	tests := []struct {
		run     string
		version int
		rules   []trace.Rule
		unkept  int // events that Kamailio sent and could not store
		users   int // rows of users that Kamailio forgot
	}{
		{"hep3_db", 3, rules(), 2, 4},
		{"hep2_db", 2, rules(), 2, 4},
		{"hep1_db", 1, rules(), 2, 4},
		{"core_init1", 3, nil, 3, 0},
		{"tcp_hep3_db", 3, rules(), 0, 4},
	}
	for _, tt := range tests {
		t.Run(tt.run, func(t *testing.T) {
			plain, marked, sip := collect(t), collect(t), collect(t)
			b := start(t, tt.rules, nil, fmt.Sprintf("hep+udp://%s?version=%d%s", plain.addr, tt.version, unmarked(tt.version)),
				"hep+udp://"+marked.addr, "sip+udp://"+sip.addr+"?xheaders=1")
			sent := datagrams(t, tt.run+".hep.lp")
			send(t, b.hep, sent)

			recorded := recordedEvents(t, tt.run)
			want, users := asStored(t, recorded, sent, tt.version)
			if users != tt.users {
				t.Errorf("Kamailio forgot %d rows of users, want %d", users, tt.users)
			}
			got := b.rows(t, len(want)+tt.unkept, tablesOf(want)...)
			got, unkept := withoutUnkept(got)
			if unkept != tt.unkept {
				t.Errorf("%d rows that Kamailio could not store, want %d", unkept, tt.unkept)
			}
			if tt.version == 1 { // has no time
				for _, rows := range [][]row{got, want} {
					for i := range rows {
						rows[i].Time = ""
					}
				}
			}
			same(t, got, want)

			sameHEP(t, plain.take(t, len(sent)), sent)
			if tt.version == 3 {
				sameMarked(t, marked.take(t, len(sent)), sent)
			}
			sameDuplicates(t, sip.take(t, len(sent)), recorded, sent, tt.version)
		})
	}
}

// unmarked asks for nothing but Kamailio's bytes.
func unmarked(version int) string {
	if version == 3 {
		return "&mark=0"
	}
	return ""
}

// asStored are the rows that siptrace writes of a run's HEP: those of Kamailio
// with the time of the datagram, which Kamailio takes a moment apart from that
// of the row, and with all rows of a user's call. It counts those that
// Kamailio forgot: the reply to a CANCEL, and an ACK that its script never sees.
func asStored(t *testing.T, recorded []recorded, sent [][]byte, version int) (rows []row, forgot int) {
	t.Helper()
	users := make(map[string][]string) // by Call-ID
	for _, r := range recorded {
		for _, row := range r.Rows {
			if row.TracedUser != "" && !slices.Contains(users[r.CallID], row.TracedUser) {
				users[r.CallID] = append(users[r.CallID], row.TracedUser)
			}
		}
	}
	for _, r := range recorded {
		stored := expectedOf(r.rows(t))
		for _, user := range users[r.CallID] {
			if !slices.ContainsFunc(stored, func(s row) bool { return s.TracedUser == user }) {
				missing := stored[0]
				missing.TracedUser = user
				stored = append(stored, missing)
				forgot++
			}
		}
		for i := range stored {
			if version > 1 {
				stored[i].Time = sentAt(t, &r, sent)
			}
		}
		rows = append(rows, stored...)
	}
	return rows, forgot
}

// expectedOf applies the differences.
func expectedOf(kamailio []row) []row {
	for _, d := range differences {
		kamailio, _ = d.apply(kamailio)
	}
	return kamailio
}

// datagramOf is the datagram that Kamailio sent of an event.
func datagramOf(t *testing.T, r *recorded, sent [][]byte) []byte {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(r.HEP, "%d.bin", &n); err != nil || n < 1 || n > len(sent) {
		t.Fatalf("datagram %q of %d", r.HEP, len(sent))
	}
	return sent[n-1]
}

// sentAt is the time that a datagram tells, which is near that of the row.
func sentAt(t *testing.T, r *recorded, sent [][]byte) string {
	t.Helper()
	p, err := hep.Decode(datagramOf(t, r, sent))
	if err != nil {
		t.Fatal(err)
	}
	at, ok := p.Time()
	e := r.event(t)
	if apart := at.Sub(e.Time).Abs(); !ok || apart > 100*time.Millisecond {
		t.Errorf("datagram %s and its row are %v apart", r.HEP, apart)
	}
	return at.UTC().Format("2006-01-02 15:04:05.000000")
}

// withoutUnkept leaves out the rows of messages that Kamailio sent as HEP and
// could not store: without a Call-ID, or with one that its column does not hold.
func withoutUnkept(rows []row) (kept []row, n int) {
	kept = slices.DeleteFunc(rows, func(r row) bool { return len(r.CallID) > 255 || r.CallID == "" })
	return kept, len(rows) - len(kept)
}

// sameHEP fails the test unless got are the datagrams that Kamailio sent, byte for byte.
func sameHEP(t *testing.T, got, want [][]byte) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		w := slices.Clone(want[i])
		if w[0] == 2 { // Kamailio leaves in the padding what was there
			copy(w[26:28], []byte{0, 0})
		}
		if !bytes.Equal(got[i], w) {
			t.Errorf("datagram %d:\ngot  %q\nwant %q", i, got[i], w)
			return
		}
	}
}

// sameMarked is sameHEP where each has the fleet's mark behind everything else.
func sameMarked(t *testing.T, got, want [][]byte) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		bare := got[i][:min(len(want[i]), len(got[i]))]
		mark := got[i][len(bare):]
		if err := hep.PatchLength(bare); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bare, want[i]) {
			t.Fatalf("datagram %d without its mark:\ngot  %q\nwant %q", i, bare, want[i])
		}
		if !bytes.HasPrefix(mark, []byte{0x53, 0x54, 0x01, 0x10, 0, byte(len(mark))}) {
			t.Fatalf("datagram %d is marked %q", i, mark)
		}
	}
}

// sameDuplicates fails the test unless got are the messages with the headers
// that Kamailio's siptrace puts there.
func sameDuplicates(t *testing.T, got [][]byte, recorded []recorded, sent [][]byte, version int) {
	t.Helper()
	want := make(map[string]int)
	for _, r := range recorded {
		want[string(r.duplicate(t, sent, version))]++
	}
	for _, b := range got {
		if version == 1 { // has no time: what was put in its place is not Kamailio's
			b = withoutTime(b)
		}
		want[string(b)]--
	}
	extra := 0
	for msg, n := range want {
		switch {
		case n > 0:
			t.Fatalf("missing: %q", msg)
		case n < 0:
			extra -= n
		}
	}
	if unkept := len(sent) - len(recorded); extra != unkept {
		t.Errorf("%d duplicates that Kamailio would not send, want those of the %d messages it has no row of", extra, unkept)
	}
}

// duplicate is what Kamailio's siptrace sends of an event over plain SIP.
func (r *recorded) duplicate(t *testing.T, sent [][]byte, version int) []byte {
	t.Helper()
	payload, err := base64.StdEncoding.DecodeString(r.Msg)
	if err != nil {
		t.Fatal(err)
	}
	own := expectedOf(r.rows(t))[0]
	seconds, micros := int64(0), int64(0)
	if version > 1 {
		at, err := time.Parse("2006-01-02 15:04:05.000000", sentAt(t, r, sent))
		if err != nil {
			t.Fatal(err)
		}
		seconds, micros = at.UnixMicro()/1e6, at.UnixMicro()%1e6
	}
	headers := fmt.Sprintf("X-Siptrace-Fromip: %s\r\nX-Siptrace-Toip: %s\r\nX-Siptrace-Time: %d %d\r\nX-Siptrace-Method: %s\r\nX-Siptrace-Dir: %s\r\n",
		own.FromIP, own.ToIP, seconds, micros, r.Method, r.Direction)
	return bytes.Replace(payload, []byte("\r\n\r\n"), []byte("\r\n"+headers+"\r\n"), 1)
}

// withoutTime is a duplicate of no time.
func withoutTime(b []byte) []byte {
	head, rest, _ := bytes.Cut(b, []byte("X-Siptrace-Time: "))
	_, rest, _ = bytes.Cut(rest, []byte("\r\n"))
	return slices.Concat(head, []byte("X-Siptrace-Time: 0 0\r\n"), rest)
}

// What Kamailio reads of its own duplicates: the first node's addresses, time
// and direction, and the message as it was.
func TestPipeline_readsDuplicatesAsKamailioReadsThem(t *testing.T) {
	var sent [][]byte
	p, err := capture.OpenPcap(filepath.Join("testdata", "xread.pcapng.gz"), capture.PcapOptions{}, prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Run(t.Context(), trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		for _, e := range events {
			if e.Dst.Port() == 19064 { // the Kamailio that read
				sent = append(sent, bytes.Clone(e.Payload))
			}
		}
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	want := tableOf(t, "xread.sip_trace_rx.csv", "sip_trace")
	if len(sent) != 102 || len(want) != 101 {
		t.Fatalf("%d duplicates, of which Kamailio made %d rows, want 102 and 101", len(sent), len(want))
	}
	b := start(t, nil, func(f *app.TapFlags) { f.LocalNet = nil })
	send(t, b.sip, sent)
	got, unkept := withoutUnkept(b.rows(t, len(sent), "sip_trace"))
	if unkept != 1 {
		t.Errorf("%d rows that Kamailio could not store, want 1", unkept)
	}
	same(t, got, expected(t, want, map[string]int{}))
}

// Over as many hops as one likes, what the first node wrote stays.
func TestPipeline_handsDuplicatesOnAsTheyCame(t *testing.T) {
	sink := collect(t)
	b := start(t, nil, nil, "sip+udp://"+sink.addr+"?xheaders=1")
	want := datagrams(t, "sip_xhw.dup.lp")
	send(t, b.sip, want)
	got := sink.take(t, len(want))
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("duplicate %d:\ngot  %q\nwant %q", i, got[i], want[i])
		}
	}
	var rows, told []row
	for _, r := range b.rows(t, len(want), "sip_trace") {
		rows = append(rows, row{Time: r.Time, Msg: r.Msg, Method: r.Method, FromIP: r.FromIP, ToIP: r.ToIP, Direction: r.Direction})
	}
	for _, d := range want {
		told = append(told, toldBy(t, string(d)))
	}
	same(t, rows, told)
}

// xheaders are the five headers as Kamailio writes them.
var xheaders = regexp.MustCompile("X-Siptrace-Fromip: (\\S+)\r\nX-Siptrace-Toip: (\\S+)\r\nX-Siptrace-Time: (\\d+) (\\d+)\r\nX-Siptrace-Method: (\\S+)\r\nX-Siptrace-Dir: (\\S+)\r\n")

// toldBy is what the headers of a duplicate say of its row, found without
// siptrace's own reader.
func toldBy(t *testing.T, duplicate string) row {
	t.Helper()
	m := xheaders.FindStringSubmatch(duplicate)
	if m == nil {
		t.Fatalf("no headers in %q", duplicate)
	}
	var seconds, micros int64
	if _, err := fmt.Sscan(m[3]+" "+m[4], &seconds, &micros); err != nil {
		t.Fatal(err)
	}
	return row{
		Time: time.Unix(seconds, micros*1000).UTC().Format("2006-01-02 15:04:05.000000"), Msg: strings.Replace(duplicate, m[0], "", 1),
		Method: m[5], FromIP: m[1], ToIP: m[2], Direction: m[6],
	}
}

// Log events of hlog() pass through as they are, but that siptrace writes the
// ports, and correlation id and key, in the order that other agents use.
func TestPipeline_handsLogEventsOn(t *testing.T) {
	sink := collect(t)
	b := start(t, nil, nil, "hep+udp://"+sink.addr+"?auth=s3cret-key&mark=0")
	want := datagrams(t, "hlog.hep.lp")
	send(t, b.hep, want)
	logs := 0
	for i, d := range sink.take(t, len(want)) {
		if g, w := chunks(t, d), chunks(t, want[i]); !slices.Equal(g, w) {
			t.Fatalf("datagram %d:\ngot  %q\nwant %q", i, g, w)
		}
		if p, err := hep.Decode(d); err == nil && p.Type == hep.TypeLog {
			logs++
		}
	}
	if logs == 0 {
		t.Error("no log event among them")
	}
	rows := b.rows(t, len(want), "sip_trace")
	var methods []string
	for _, r := range rows {
		if strings.HasPrefix(r.Method, "hep:") {
			methods = append(methods, r.Method)
			if r.CallID == "" || !strings.Contains(r.Msg, "log line") {
				t.Errorf("log event %q of call %q", r.Msg, r.CallID)
			}
		}
	}
	if len(methods) != logs {
		t.Errorf("%d log events stored, want %d", len(methods), logs)
	}
}

// chunks are the chunks of a packet in the order of their bytes.
func chunks(t *testing.T, packet []byte) []string {
	t.Helper()
	var all []string
	for c, err := range hep.Chunks(packet) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(hep.AppendChunk(nil, c.Vendor, c.Type, c.Body)))
	}
	slices.Sort(all)
	return all
}

// trace_sl_acks=0: Kamailio leaves out the ACK to a reply of sl alone. A tap
// sees on the wire no difference to one of tm, and leaves out that one, too.
func TestPipeline_leavesOutTheACKsThatKamailioLeavesOut(t *testing.T) {
	isACK := func(r row) bool {
		return r.Method == "ACK" && r.Direction == "in" && strings.Contains(r.CallID, "neg-")
	}
	calls := func(rows []row) []string {
		var ids []string
		for _, r := range rows {
			if isACK(r) && r.TracedUser == "" {
				ids = append(ids, r.CallID)
			}
		}
		slices.Sort(ids)
		return ids
	}
	if got, want := calls(tableOf(t, "db_noslack.sip_trace.csv", "sip_trace")), []string{"tneg-alice-1@golden"}; !slices.Equal(got, want) {
		t.Fatalf("Kamailio traced the ACKs of %q, want %q", got, want)
	}
	b := start(t, nil, func(f *app.TapFlags) { f.SLAcks.Off = true })
	sent := datagrams(t, "hep3_db.hep.lp")
	send(t, b.hep, sent)
	all, _ := asStored(t, recordedEvents(t, "hep3_db"), sent, 3)
	var want []row
	for _, r := range all {
		if r.TracedUser == "" && !isACK(r) { // there is no rule for users and tables
			r.Table = "sip_trace"
			want = append(want, r)
		}
	}
	if left := calls(all); !slices.Equal(left, []string{"slneg-alice-1@golden", "slneg-multi-1@golden", "tneg-alice-1@golden"}) {
		t.Errorf("ACKs of %q were there", left)
	}
	got, _ := withoutUnkept(b.rows(t, len(want)+2, "sip_trace"))
	same(t, got, want)
}
