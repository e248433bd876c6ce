package sipmsg_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files in testdata were sent through a Kamailio proxy that traced them.
func TestScan_readsWhatKamailioTraced(t *testing.T) {
	long := "longcallid-" + strings.Repeat("x", 300)
	tests := []struct {
		file string
		want func(w *fields)
	}{
		{"01-binbody", func(w *fields) {
			w.ContentType, w.ContentLength = "application/octet-stream", "256"
			for c := range 256 {
				w.Body += string([]byte{byte(c)})
			}
		}},
		{"03-compact", func(w *fields) { w.FromTag = "raw-compact" }},
		{"04-utf8", nil},
		{"05-latin1", nil},
		{"06-nocallid", func(w *fields) { w.Flags, w.CallID, w.FromTag = "missing-call-id", "", "raw-nocallid" }},
		{"07-nofromtag", func(w *fields) { w.FromTag = "" }},
		{"10-longcallid", func(w *fields) {
			w.CallID, w.FromTag, w.ViaBranch = "raw-"+long+"@golden", "raw-raw-"+long, "z9hG4bK-raw-"+long
		}},
		{"11-quote", func(w *fields) {
			w.CallID, w.ViaBranch, w.FromTag = `raw-q'uote\back@golden`, `z9hG4bK-raw-q'uote\back`, "raw-quote"
		}},
		{"12-retrans", func(w *fields) {
			w.FromTag = "raw-retrans"
			w.RequestURI, w.RURIUser = "sip:relay@127.0.0.1:15060", "relay"
			w.ToURI, w.ToUser = "sip:relay@golden.example", "relay"
		}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			_, name, _ := strings.Cut(tt.file, "-")
			want := kamailio(name)
			if tt.want != nil {
				tt.want(&want)
			}
			compare(t, scan(recorded(t, tt.file)), want)
		})
	}
}

// kamailio is what most of the recorded requests have in common.
func kamailio(name string) fields {
	return fields{
		Method:     "OPTIONS",
		RequestURI: "sip:ping@127.0.0.1:15060", RURIUser: "ping", RURIHost: "127.0.0.1",
		FromURI: "sip:alice@golden.example", FromUser: "alice", FromHost: "golden.example", FromTag: "raw-raw-" + name,
		ToURI: "sip:ping@golden.example", ToUser: "ping", ToHost: "golden.example",
		CallID: "raw-" + name + "@golden", CSeq: "7", CSeqMethod: "OPTIONS",
		ViaTransport: "UDP", ViaHost: "127.0.0.1", ViaBranch: "z9hG4bK-raw-" + name,
		ContentLength: "0",
	}
}

func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestScan_readsWhatKamailioDidNotTrace(t *testing.T) {
	compare(t, scan(recorded(t, "08-crlfcrlf")), fields{Flags: "keep-alive"})
	compare(t, scan(recorded(t, "09-notsip")), fields{Flags: "not-sip no-colon"})
}

func TestScan_readsABigBody(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 1235)[:19756]
	want := kamailio("bigbody")
	want.ContentType, want.ContentLength, want.Body = "text/plain", fmt.Sprint(len(body)), body
	small := strings.ReplaceAll(recorded(t, "01-binbody"), "binbody", "bigbody")
	head, _, _ := strings.Cut(small, "\r\n\r\n")
	head = strings.NewReplacer("application/octet-stream", "text/plain", "256", fmt.Sprint(len(body))).Replace(head)
	compare(t, scan(head+"\r\n\r\n"+body), want)
}
