package postgres_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestKamailiosTable(t *testing.T) {
	address := newDatabase(t)
	execute(t, address, storetest.KamailioTable)
	s := openStore(t, address, store.Options{})
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ü", 300)
	payloads := [][]byte{
		[]byte("INVITE sip:bob@b SIP/2.0\r\nCall-ID: a@b\r\nCSeq: 1 INVITE\r\n\r\n"),
		[]byte("SIP/2.0 200 OK\r\nCall-ID: a@b\r\nCSeq: 1 INVITE\r\n\r\n\x00\xff"),
		[]byte(`\x49`),
		[]byte(""),
		[]byte("OPTIONS sip:a@b SIP/2.0\r\nCall-ID: " + long + "\r\nFrom: <sip:a@b>;tag=" + long + "\r\n\r\n"),
	}
	var events []trace.Event
	for i, p := range payloads {
		e := trace.Event{Time: today().Add(time.Duration(i)*time.Second + 987654*time.Microsecond), Type: trace.TypeSIP, Transport: trace.TCP,
			Src: netip.MustParseAddrPort("192.0.2.1:5060"), Dst: netip.MustParseAddrPort("[2001:db8::1]:5061"), Direction: trace.Out, Payload: p}
		e.Identify()
		events = append(events, e)
	}
	write(t, s, events...)

	t.Run("has every message, byte for byte", func(t *testing.T) {
		var got []trace.Event
		for e, err := range s.Find(t.Context(), trace.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		if len(got) != len(events) {
			t.Fatalf("%d events, want %d", len(got), len(events))
		}
		for i, e := range got {
			want := events[i]
			if !bytes.Equal(e.Payload, want.Payload) || !e.Time.Equal(want.Time) || e.Src != want.Src || e.Dst != want.Dst ||
				e.Transport != want.Transport || e.Direction != want.Direction {
				t.Errorf("got  %+v\nwant %+v", e, want)
			}
		}
	})
	t.Run("can be searched", func(t *testing.T) {
		for _, q := range []trace.Query{
			{CallID: "a@b"}, {CallID: "a@b", Limit: 2}, {Method: "INVITE"}, {From: events[0].Time, To: events[2].Time}, {To: events[2].Time, Limit: 2},
		} {
			if got := count(t, s, q); got != 2 {
				t.Errorf("%+v finds %d, want 2", q, got)
			}
		}
	})
	t.Run("has values that are cut by characters, and messages as Kamailio writes them", func(t *testing.T) {
		got := column(t, address, `SELECT callid || ' ' || length(fromtag) || ' ' || msg FROM sip_trace ORDER BY time_stamp`)
		want := []string{
			"a@b 0 " + string(payloads[0]),
			fmt.Sprintf(`a@b 0 \x%x`, payloads[1]),
			` 0 \x5c783439`,
			` 0 `,
			strings.Repeat("ü", 255) + " 128 " + string(payloads[4]),
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
	t.Run("is read where Kamailio itself has written", func(t *testing.T) {
		execute(t, address, `INSERT INTO sip_trace (time_stamp, time_us, callid, msg, method, fromip, toip, direction)
			VALUES ('2026-11-22 18:57:42', 504569, 'theirs', '\x494e56495445', 'INVITE', 'udp:::1:15080', 'any:255.255.255.255:5060', 'in')`)
		for e, err := range s.Find(t.Context(), trace.Query{CallID: "theirs"}) {
			if err != nil {
				t.Fatal(err)
			}
			if string(e.Payload) != "INVITE" || e.Src != netip.MustParseAddrPort("[::1]:15080") || e.Time.Nanosecond() != 504569000 {
				t.Errorf("%+v", e)
			}
		}
	})
	t.Run("takes a row that it cannot hold from no other", func(t *testing.T) {
		execute(t, address, `ALTER TABLE sip_trace ADD CONSTRAINT refuse CHECK (method <> 'BYE')`)
		before := count(t, s, trace.Query{})
		bye := at(today())
		bye.Payload = []byte("BYE sip:a@b SIP/2.0\r\n\r\n")
		err := s.Write(t.Context(), []trace.Event{at(today()), bye, at(today().Add(time.Second))})
		if rejected, ok := err.(trace.Rejected); !ok || len(rejected) != 1 || rejected[0].Index != 1 || rejected[0].Reason != store.Refused {
			t.Errorf("Write = %v", err)
		}
		if got := count(t, s, trace.Query{}); got != before+2 {
			t.Errorf("%d events, want %d", got, before+2)
		}
	})
}
