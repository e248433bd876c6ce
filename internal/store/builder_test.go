package store

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

var invite = []byte("INVITE sip:bob@biloxi.example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK77\r\n" +
	"From: Alice <sip:alice@atlanta.example.com>;tag=9fxced76sl\r\nTo: <sip:carol@biloxi.example.com>\r\n" +
	"Call-ID: 3848276298220188511@atlanta.example.com\r\nCSeq: 7 INVITE\r\nContent-Length: 0\r\n\r\n")

func event(payload []byte) trace.Event {
	e := trace.Event{
		Time: time.Date(2026, 11, 22, 18, 57, 42, 504569000, time.UTC), Agent: trace.Agent{ID: 2001}, Transport: trace.UDP,
		Direction: trace.In, Type: trace.TypeSIP, Payload: payload,
	}
	_, e.Src = parseAddr([]byte("udp:192.0.2.1:5060"))
	_, e.Dst = parseAddr([]byte("udp:[2001:db8::1]:5060"))
	e.Identify()
	return e
}

// Kamailio's own rows, recorded, against those made of the same messages. The
// one column that differs on purpose is totag: Kamailio leaves it empty in
// messages it made itself, though the message has a tag.
func TestBuilder_agreesWithKamailio(t *testing.T) {
	f, err := os.Open("testdata/kamailio.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var b Builder
	for _, want := range records[1:] {
		e := kamailioEvent(t, want)
		for _, r := range b.Rows(&e) {
			got := []string{string(r.CallID), string(r.TracedUser), string(r.Method), string(r.Status), string(r.FromIP), string(r.ToIP),
				string(r.FromTag), r.Direction.String()}
			if kept := append(slices.Clone(want[3:5]), want[6], want[7], want[8], want[9], want[10], want[12]); !slices.Equal(got, kept) {
				t.Errorf("row %s:\ngot  %q\nwant %q", want[0], got, kept)
			}
			if toTag := string(r.ToTag); toTag != want[11] && want[11] != "" {
				t.Errorf("row %s: totag %q, want %q", want[0], toTag, want[11])
			}
			if r.Time.Format("2006-01-02 15:04:05") != want[1] {
				t.Errorf("row %s: time_stamp %s, want %s", want[0], r.Time, want[1])
			}
		}
	}
}

// kamailioEvent is the event that a recorded row was made of.
func kamailioEvent(t *testing.T, record []string) trace.Event {
	t.Helper()
	payload, err := hex.DecodeString(strings.TrimPrefix(record[5], `\x`))
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999", record[1]+"."+strings.Repeat("0", 6-len(record[2]))+record[2])
	if err != nil {
		t.Fatal(err)
	}
	e := trace.Event{Time: at, Type: trace.TypeSIP, Payload: payload}
	e.Transport, e.Src = parseAddr([]byte(record[8]))
	_, e.Dst = parseAddr([]byte(record[9]))
	e.Direction, _ = trace.ParseDirection(record[12])
	if record[4] != "" {
		e.TracedUsers, e.Flags = []string{record[4]}, trace.UsersOnly
	}
	e.Identify()
	return e
}

func TestBuilder_Rows_id(t *testing.T) {
	e := event(invite)
	e.TracedUsers = []string{"alice", "bob"}
	rows := new(Builder).Rows(&e)
	seen := make(map[int64]bool)
	for _, r := range rows {
		if r.ID>>16 != e.Time.UnixMilli() {
			t.Errorf("id %d is not of %s", r.ID, e.Time)
		}
		seen[r.ID] = true
	}
	if len(seen) != 3 {
		t.Errorf("ids %v, want 3 of them", seen)
	}
}

func TestRow_Event_isTheEvent(t *testing.T) {
	e := event(invite)
	e.CorrelationID = []byte("corr")
	got := new(Builder).Rows(&e)[0].Event()
	if got.ID != e.ID || !got.Time.Equal(e.Time) || got.Agent != e.Agent || got.Src != e.Src || got.Dst != e.Dst || got.Transport != e.Transport ||
		got.Direction != e.Direction || got.Type != e.Type || !bytes.Equal(got.Payload, e.Payload) || !bytes.Equal(got.CorrelationID, e.CorrelationID) {
		t.Errorf("got  %+v\nwant %+v", got, e)
	}
}

func TestBuilder_doesNotAllocate(t *testing.T) {
	e := event(invite)
	e.TracedUsers = []string{"alice", "bob"}
	dirty := event(bytes.Replace(invite, []byte("alice"), []byte("al\x00\xffice"), 1))
	var b Builder
	if n := testing.AllocsPerRun(100, func() { b.Rows(&e); b.Rows(&dirty) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkBuilder(b *testing.B) {
	e := event(invite)
	var build Builder
	b.ReportAllocs()
	b.SetBytes(int64(len(e.Payload)))
	for b.Loop() {
		build.Rows(&e)
	}
}

func FuzzBuilder(f *testing.F) {
	f.Add(invite, "alice", uint8(1))
	f.Add([]byte("SIP/2.0 200 OK\r\nCall-ID: \x00\xff\r\n\r\n"), "\xff\x00", uint8(1))
	f.Add([]byte("hep:5 sip:a SIP/2.0\r\nCSeq: 1 hep:5\r\n\r\n"), "", uint8(100))
	f.Fuzz(func(t *testing.T, payload []byte, word string, typ uint8) {
		e := event(payload)
		e.Type, e.TracedUsers, e.CorrelationID = typ, []string{word, "x", word}, []byte(word)
		e.Agent.Name = word
		before := e.Clone()
		for _, r := range new(Builder).Rows(&e) {
			for _, text := range [][]byte{r.CallID, r.TracedUser, r.Method, r.Status, r.FromIP, r.ToIP, r.FromTag, r.ToTag, r.Node,
				r.CorrelationID, r.FromUser, r.ToUser, r.RURIUser} {
				if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 || len(text) > MaxText {
					t.Errorf("text %.60q", text)
				}
			}
			got := r.Event()
			if !bytes.Equal(got.Payload, payload) || got.Type != typ || got.ID != e.ID || !got.Time.Equal(e.Time) {
				t.Errorf("event %+v", got)
			}
		}
		if !bytes.Equal(e.Payload, before.Payload) {
			t.Error("the payload was changed")
		}
	})
}
