package parity

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A row is one row of Kamailio's table, its columns as text; the message as it
// was, without Kamailio's hexadecimal digits.
type row struct {
	Table, Time, CallID, TracedUser, Msg, Method, Status string
	FromIP, ToIP, FromTag, ToTag, Direction              string
}

// recorded is one event that Kamailio traced, and what it made of it.
type recorded struct {
	Table     string `json:"table"`
	TimeStamp string `json:"time_stamp"`
	TimeUS    string `json:"time_us"`
	CallID    string `json:"callid"`
	Method    string `json:"method"`
	Status    string `json:"status"`
	FromIP    string `json:"fromip"`
	ToIP      string `json:"toip"`
	FromTag   string `json:"fromtag"`
	ToTag     string `json:"totag"`
	Direction string `json:"direction"`
	Rows      []struct {
		TracedUser string `json:"traced_user"`
	} `json:"rows"`
	HEP string `json:"hep_file"` // "00001.bin": the first datagram of the run; empty is none
	Msg string `json:"msg_b64"`
}

// unpacked reads a file of testdata.
func unpacked(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// recordedEvents are the events of a run.
func recordedEvents(t testing.TB, run string) []recorded {
	t.Helper()
	var all []recorded
	for line := range bytes.Lines(unpacked(t, run+".events.jsonl")) {
		var r recorded
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// datagrams are those of a file.
func datagrams(t testing.TB, name string) [][]byte {
	t.Helper()
	var all [][]byte
	for b := unpacked(t, name); len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint32(b))
		all = append(all, b[4:n])
		b = b[n:]
	}
	return all
}

// event is what a tap would have seen.
func (r *recorded) event(t testing.TB) trace.Event {
	t.Helper()
	payload, err := base64.StdEncoding.DecodeString(r.Msg)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.DateTime+".999999", r.time())
	if err != nil {
		t.Fatal(err)
	}
	e := trace.Event{Time: at, Type: trace.TypeSIP, Payload: payload, Agent: trace.Agent{ID: 2001}}
	_, e.Src = endpoint(t, r.FromIP)
	e.Transport, e.Dst = endpoint(t, r.ToIP)
	e.Direction, _ = trace.ParseDirection(r.Direction)
	e.Flags = trace.UsersOnly
	for _, row := range r.Rows {
		if row.TracedUser == "" {
			e.Flags = 0
		} else {
			e.TracedUsers = append(e.TracedUsers, row.TracedUser)
		}
	}
	if e.Table = r.Table; e.Table == "sip_trace" {
		e.Table = "" // the default
	}
	e.Identify()
	return e
}

// time is the time with its microseconds.
func (r *recorded) time() string { return stamp(r.TimeStamp, r.TimeUS) }

// stamp joins the columns time_stamp and time_us.
func stamp(seconds, micros string) string {
	return seconds + "." + strings.Repeat("0", 6-len(micros)) + micros
}

// endpoint reads udp:127.0.0.1:15060.
func endpoint(t testing.TB, s string) (trace.Transport, netip.AddrPort) {
	t.Helper()
	name, rest, _ := strings.Cut(s, ":")
	transport, ok := trace.ParseTransport(name)
	a, err := netip.ParseAddrPort(rest)
	if !ok || err != nil {
		t.Fatalf("address %q: %v", s, err)
	}
	return transport, a
}

// rows are those that Kamailio wrote of the event.
func (r *recorded) rows(t testing.TB) []row {
	t.Helper()
	payload, err := base64.StdEncoding.DecodeString(r.Msg)
	if err != nil {
		t.Fatal(err)
	}
	var all []row
	for _, user := range r.Rows {
		all = append(all, row{
			Table: r.Table, Time: r.time(), CallID: r.CallID, TracedUser: user.TracedUser, Msg: string(payload), Method: r.Method, Status: r.Status,
			FromIP: r.FromIP, ToIP: r.ToIP, FromTag: r.FromTag, ToTag: r.ToTag, Direction: r.Direction,
		})
	}
	return all
}

// tableOf is a table as PostgreSQL wrote it out, its messages decoded.
func tableOf(t testing.TB, file, table string) []row {
	t.Helper()
	records, err := csv.NewReader(bytes.NewReader(unpacked(t, file))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var all []row
	for _, r := range records[1:] {
		msg, err := hex.DecodeString(strings.TrimPrefix(r[5], `\x`))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, row{
			Table: table, Time: stamp(r[1], r[2]), CallID: r[3], TracedUser: r[4], Msg: string(msg), Method: r[6], Status: r[7],
			FromIP: r[8], ToIP: r[9], FromTag: r[10], ToTag: r[11], Direction: r[12],
		})
	}
	return all
}
