package listen

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestParseInput(t *testing.T) {
	tests := []struct {
		in   string
		want Input
	}{
		{"hep+udp://:9060", Input{Scheme: "hep+udp", Addr: ":9060"}},
		{"hep+udp://", Input{Scheme: "hep+udp", Addr: ":9060"}},
		{"HEP+UDP://10.0.0.1/", Input{Scheme: "hep+udp", Addr: "10.0.0.1:9060"}},
		{"hep+tcp://[::1]", Input{Scheme: "hep+tcp", Addr: "[::1]:9060"}},
		{"hep+tcp://[2001:db8::1]:9999", Input{Scheme: "hep+tcp", Addr: "[2001:db8::1]:9999"}},
		{"hep+udp://localhost:0", Input{Scheme: "hep+udp", Addr: "localhost:0"}},
		{"hep+udp://:9060?auth=s%20e&rcvbuf=64MiB", Input{Scheme: "hep+udp", Addr: ":9060", HEP: HEPOptions{Auth: "s e", RcvBuf: 64 << 20}}},
		{"hep+tcp://:9060?rcvbuf=4096&conns=7&timeout=5s", Input{Scheme: "hep+tcp", Addr: ":9060",
			HEP: HEPOptions{RcvBuf: 4096, MaxConns: 7, FrameTimeout: 5 * time.Second}}},
		{"hep+tls://?cert=a.crt&key=b.key", Input{Scheme: "hep+tls", Addr: ":9061", TLS: TLSFiles{Cert: "a.crt", Key: "b.key"}}},
		{"hep+tls://:1?ca=c.crt&cert=a.crt&key=b.key", Input{Scheme: "hep+tls", Addr: ":1", TLS: TLSFiles{Cert: "a.crt", Key: "b.key", CA: "c.crt"}}},
		{"siptrace+udp://", Input{Scheme: "siptrace+udp", Addr: ":5066"}},
		{"siptrace+udp://10.0.0.1:5070?require=0&rcvbuf=65536", Input{Scheme: "siptrace+udp", Addr: "10.0.0.1:5070",
			SIP: SIPOptions{Bare: true, RcvBuf: 65536}}},
		{"hep+udp://127.0.0.1:9060?trust=1", Input{Scheme: "hep+udp", Addr: "127.0.0.1:9060", HEP: HEPOptions{Trust: true}}},
		{"hep+udp://127.8.9.1?trust=1", Input{Scheme: "hep+udp", Addr: "127.8.9.1:9060", HEP: HEPOptions{Trust: true}}},
		{"hep+tcp://[::1]?trust=1", Input{Scheme: "hep+tcp", Addr: "[::1]:9060", HEP: HEPOptions{Trust: true}}},
		{"hep+udp://:9060?trust=1&auth=k", Input{Scheme: "hep+udp", Addr: ":9060", HEP: HEPOptions{Trust: true, Auth: "k"}}},
		{"hep+tls://?trust=1&ca=c.crt&cert=a.crt&key=b.key", Input{Scheme: "hep+tls", Addr: ":9061",
			TLS: TLSFiles{Cert: "a.crt", Key: "b.key", CA: "c.crt"}, HEP: HEPOptions{Trust: true}}},
		{"hep+udp://:9060?trust=0", Input{Scheme: "hep+udp", Addr: ":9060"}},
		{"siptrace+udp://[::1]?require=1", Input{Scheme: "siptrace+udp", Addr: "[::1]:5066"}},
	}
	for _, tt := range tests {
		got, err := ParseInput(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseInput(%q) = %+v, %v, want %+v", tt.in, got, err, tt.want)
			continue
		}
		if got.HEP.Auth == "" {
			if again, err := ParseInput(got.String()); err != nil || again != got {
				t.Errorf("ParseInput(%q) = %+v, %v, want %+v again", got.String(), again, err, got)
			}
		}
	}
}

func TestParseInput_saysWhatIsWrongAndWhatIsKnown(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "unknown scheme"},
		{"udp://:9060", "hep+tcp, hep+tls, hep+udp"},
		{"hep+sctp://:9060", `unknown scheme "hep+sctp"`},
		{"pcap:calls.pcap", "unknown scheme"},
		{"hep+udp:9060", "try hep+udp://"},
		{":9060", "try hep+udp://"},
		{"hep+udp://:port", "try hep+udp://"},
		{"hep+udp://:70000", `port "70000"`},
		{"hep+udp://:9060/path", "more than"},
		{"hep+udp://user@:9060", "more than"},
		{"hep+udp://:9060?colour=red", "known are auth, rcvbuf"},
		{"hep+udp://:9060?cert=a", "known are auth, rcvbuf"},
		{"hep+tcp://:9060?cert=a", "known are auth, conns, rcvbuf, timeout"},
		{"hep+tls://:9060?colour=red", "known are auth, ca, cert, conns, key, rcvbuf, timeout, trust"},
		{"hep+tls://:9061", "cert=FILE"},
		{"hep+tls://:9061?cert=a", "cert=FILE"},
		{"hep+udp://:9060?auth=", "one value"},
		{"hep+udp://:9060?auth=topsecret&auth=topsecret", "one value"},
		{"hep+udp://:9060?auth=topsecret;x", "form name=value"},
		{"hep+udp://:9060?rcvbuf=much", "as 32MiB"},
		{"hep+udp://:9060?rcvbuf=2GiB", "as 32MiB"},
		{"hep+tcp://:9060?conns=0", "from 1 up"},
		{"hep+tcp://:9060?timeout=-1s", "as 30s"},
		{"hep+tcp://:9060?timeout=topsecret", "as 30s"},
		{"hep+udp://127.0.0.1:9060?trust=yes", "1 is wanted"},
		{"hep+udp://:9060?trust=1", "listen on 127.0.0.1 or [::1], or ask for a key (auth=KEY)"},
		{"hep+tcp://10.0.0.1:9060?trust=1", "auth=KEY"},
		{"hep+udp://localhost:9060?trust=1", "listen on 127.0.0.1"},
		{"hep+udp://0.0.0.0:9060?trust=1", "listen on 127.0.0.1"},
		{"hep+udp://[::]:9060?trust=1", "listen on 127.0.0.1"},
		{"hep+udp://:9060?trust=1&auth=", "one value"},
		{"hep+tls://:9061?trust=1&cert=a&key=b", "certificates of your own authority (ca=FILE)"},
		{"siptrace+udp://127.0.0.1:5066?trust=1", "known are rcvbuf, require"},
		{"siptrace+udp:5066", "try siptrace+udp://:5066"},
		{"siptrace+udp://:5066?auth=topsecret", "known are rcvbuf, require"},
		{"siptrace+udp://:5066?require=maybe", "1 is wanted"},
		{"siptrace+tcp://:5066", "known are hep+tcp, hep+tls, hep+udp, siptrace+udp"},
		{"hep+udp://%zz?auth=topsecret", "try hep+udp://"},
	}
	for _, tt := range tests {
		_, err := ParseInput(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseInput(%q) = %v, want %q", tt.in, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "topsecret") {
			t.Errorf("ParseInput(%q) gives its secret away: %v", tt.in, err)
		}
	}
}

func TestInput_keepsItsSecret(t *testing.T) {
	in, err := ParseInput("hep+udp://:9060?auth=topsecret")
	if err != nil {
		t.Fatal(err)
	}
	if got := in.String(); got != "hep+udp://:9060?auth=xxxxx" {
		t.Errorf("got %q", got)
	}
}

func TestAccepts_goesByTheScheme(t *testing.T) {
	for in, want := range map[string]bool{
		"hep+udp://:9060": true, "HEP+TLS://": true, "hep+tcp:nonsense": true, "siptrace+udp://": true, "pcap:x": false, "hep+udp": false, "": false,
	} {
		if got := Accepts(in); got != want {
			t.Errorf("Accepts(%q) = %v, want %v", in, got, want)
		}
	}
}

func TestInput_listens(t *testing.T) {
	cert := newTLS(t)
	for _, url := range []string{
		"hep+udp://127.0.0.1:0", "hep+tcp://127.0.0.1:0?rcvbuf=65536", "hep+tls://127.0.0.1:0?cert=" + cert.Cert + "&key=" + cert.Key,
	} {
		in, err := ParseInput(url)
		if err != nil {
			t.Fatal(err)
		}
		s, err := in.Listen(prometheus.NewRegistry(), quiet())
		if err != nil {
			t.Fatal(err)
		}
		box := newInbox()
		start(t, s, box)
		if in.Scheme == schemeTLS {
			send(t, dialTLS(t, s, cert, nil), good(t, url))
		} else {
			send(t, dial(t, s), good(t, url))
		}
		if got := payloads(box.wait(t, 1)); got != url {
			t.Errorf("got %q, want %q", got, url)
		}
	}
	open := Input{Scheme: "hep+udp", Addr: ":0", HEP: HEPOptions{Trust: true}}
	for _, in := range []Input{open, {Scheme: "hep+udp", Addr: "nonsense"}, {Scheme: "hep+tcp", Addr: "nonsense"}, {Scheme: "hep+tls", Addr: ":0"}, {}} {
		if s, err := in.Listen(prometheus.NewRegistry(), quiet()); err == nil || s != nil {
			t.Errorf("%+v: got %v, %v, want nil and an error", in, s, err)
		}
	}
}
