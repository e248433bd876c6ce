package forward

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func TestParseDestination_readsWhatUsersWrite(t *testing.T) {
	fallback := Destination{Scheme: HEPTCP, Host: "big.example.com", Port: 9061, Version: 3}
	tests := []struct {
		in   string
		want Destination
	}{
		{"hep+udp://homer.example.com", Destination{Scheme: HEPUDP, Host: "homer.example.com", Port: 9060, Version: 3}},
		{"HEP+UDP://Homer.Example.COM.:9999/", Destination{Scheme: HEPUDP, Host: "homer.example.com", Port: 9999, Version: 3}},
		{"hep+udp://10.0.0.1:9060?version=1", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 1}},
		{"hep+udp://10.0.0.1?version=2&capture-id=70000", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 2, CaptureID: 70000, SetCaptureID: true}},
		{"hep+udp://10.0.0.1?capture-id=0", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, SetCaptureID: true}},
		{"hep+udp://10.0.0.1?auth=a+b%26c&node=edge%201", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, Auth: "a+b&c", Node: "edge 1"}},
		{"hep+udp://10.0.0.1?from=udp:10.1.1.2:5000", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, From: netip.MustParseAddrPort("10.1.1.2:5000")}},
		{"hep+udp://10.0.0.1?from=10.1.1.2", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, From: netip.MustParseAddrPort("10.1.1.2:0")}},
		{"hep+udp://[2001:db8::1]:9060?from=udp:[::1]:5000", Destination{Scheme: HEPUDP, Host: "2001:db8::1", Port: 9060, Version: 3, From: netip.MustParseAddrPort("[::1]:5000")}},
		{"hep+udp://[fe80::1%25eth0]", Destination{Scheme: HEPUDP, Host: "fe80::1%eth0", Port: 9060, Version: 3}},
		{"hep+udp://[::ffff:10.0.0.1]", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3}},
		{"hep+udp://10.0.0.1?refused=ignore", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, IgnoreRefused: true}},
		{"hep+udp://10.0.0.1?fallback=hep+tcp://big.example.com:9061", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, Fallback: &fallback}},
		{"hep+udp://10.0.0.1?fallback=hep%2Btcp%3A%2F%2Fbig.example.com%3A9061", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, Fallback: &fallback}},
		{"hep+tcp://homer", Destination{Scheme: HEPTCP, Host: "homer", Port: 9060, Version: 3}},
		{"hep+tcp://10.0.0.1?from=tcp:10.1.1.2:0", Destination{Scheme: HEPTCP, Host: "10.0.0.1", Port: 9060, Version: 3, From: netip.MustParseAddrPort("10.1.1.2:0")}},
		{"hep+tls://homer", Destination{Scheme: HEPTLS, Host: "homer", Port: 9061, Version: 3}},
		{"hep+tls://homer:9062?ca=/etc/ca.pem&cert=c.pem&key=k.pem&server-name=h.example.com&insecure=1", Destination{
			Scheme: HEPTLS, Host: "homer", Port: 9062, Version: 3,
			TLS: TLSOptions{CA: "/etc/ca.pem", Cert: "c.pem", Key: "k.pem", ServerName: "h.example.com", Insecure: true},
		}},
		{"sip+udp://10.0.0.1", Destination{Scheme: SIPUDP, Host: "10.0.0.1", Port: 5060}},
		{"hep+udp://10.0.0.1?mark=0", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3, NoMark: true}},
		{"sip+udp://10.0.0.1?taps=1", Destination{Scheme: SIPUDP, Host: "10.0.0.1", Port: 5060, Taps: true}},
		{"hep+udp://10.0.0.1?mark=1", Destination{Scheme: HEPUDP, Host: "10.0.0.1", Port: 9060, Version: 3}},
		{"sip+udp://10.0.0.1:5066?xheaders=1", Destination{Scheme: SIPUDP, Host: "10.0.0.1", Port: 5066, XHeaders: true}},
		{"sip:10.1.1.1:5888", Destination{Scheme: SIPUDP, Host: "10.1.1.1", Port: 5888}},
		{"sip:10.1.1.1", Destination{Scheme: SIPUDP, Host: "10.1.1.1", Port: 5060}},
		{"sip:10.1.1.1:5888;transport=UDP?xheaders=true", Destination{Scheme: SIPUDP, Host: "10.1.1.1", Port: 5888, XHeaders: true}},
		{"sip:[2001:db8::1]:5888;transport=udp", Destination{Scheme: SIPUDP, Host: "2001:db8::1", Port: 5888}},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseDestination(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			// Pointers differ, what they point to must not.
			if got.String() != tt.want.String() || got.Auth != tt.want.Auth {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if (got.Fallback == nil) != (tt.want.Fallback == nil) || got.Fallback != nil && *got.Fallback != *tt.want.Fallback {
				t.Errorf("fallback: got %v, want %v", got.Fallback, tt.want.Fallback)
			}
			got.Fallback, tt.want.Fallback = nil, nil
			if got != tt.want {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
		})
	}
}

// badDestinations are what nobody should write, and words of what is said of it.
var badDestinations = []struct{ name, in, want string }{
	{"nothing", "", "empty: known are hep+udp://"},
	{"no scheme", "10.0.0.1", "no scheme: known are"},
	{"host and port only", "homer:9060", "known are hep+udp://"},
	{"hep without transport", "hep://homer", `unknown scheme "hep": known are hep+udp://`},
	{"http", "http://homer:9060/hep", "unknown scheme"},
	{"file", "file:///etc/passwd", "unknown scheme"},
	{"sips", "sips:10.0.0.1", "known are"},
	{"scheme only", "hep+udp:", "known are"},
	{"no host", "hep+udp://", "no host"},
	{"port only", "hep+udp://:9060", "no host"},
	{"version 1 over TCP", "hep+tcp://homer?version=1", "do not say where they end"},
	{"version 2 over TLS", "hep+tls://homer?version=2", "hep+udp:// only"},
	{"version 4", "hep+udp://homer?version=4", "want 1, 2 or 3"},
	{"version 03", "hep+udp://homer?version=03", "want 1, 2 or 3"},
	{"version 1 with an id", "hep+udp://homer?version=1&capture-id=3", "no room for capture-id"},
	{"version 2 with a key", "hep+udp://homer?version=2&auth=hidden", "no room for auth"},
	{"unknown option", "hep+udp://homer?colour=red", `unknown option "colour": hep+udp:// knows version, capture-id, auth, node, mark, taps, from, refused, fallback`},
	{"option of another scheme", "hep+tcp://homer?xheaders=1", "unknown option"},
	{"TLS option without TLS", "hep+tcp://homer?ca=/etc/ca.pem", "unknown option"},
	{"option in capitals", "hep+udp://homer?Version=3", "unknown option"},
	{"option twice", "hep+udp://homer?node=a&node=b", "twice"},
	{"option without value", "hep+udp://homer?node", "no value"},
	{"option with an empty value", "hep+udp://homer?auth=", "no value"},
	{"empty option", "hep+udp://homer?&", "unknown option"},
	{"key with an ampersand", "hep+udp://homer?auth=hid&den=hidden", "written %26"},
	{"capture id too large", "hep+udp://homer?capture-id=4294967296", "4294967295"},
	{"capture id below nought", "hep+udp://homer?capture-id=-1", "4294967295"},
	{"capture id in hex", "hep+udp://homer?capture-id=0x10", "4294967295"},
	{"port 0", "hep+udp://homer:0", "1 to 65535"},
	{"port too large", "hep+udp://homer:65536", "1 to 65535"},
	{"port with a sign", "hep+udp://homer:+90", "1 to 65535"},
	{"port of letters", "hep+udp://homer:hep", "1 to 65535"},
	{"empty port", "hep+udp://homer:", "1 to 65535"},
	{"user and password", "hep+udp://root:hidden@homer", "only a host and a port"},
	{"password in sip", "sip:bob:hidden@10.0.0.1", "only a host and a port"},
	{"path", "hep+udp://homer/hep", "only a host and a port"},
	{"backslash", `hep+udp://homer\evil`, "only a host and a port"},
	{"fragment", "hep+udp://homer#x", "write %23"},
	{"key with a fragment", "hep+udp://homer?auth=hid#den", "write %23"},
	{"newline", "hep+udp://homer\n", "byte 0x0a"},
	{"NUL", "hep+udp://homer\x00.example.com", "byte 0x00"},
	{"escaped NUL", "hep+udp://homer?node=a%00b", "control character"},
	{"escaped newline", "hep+udp://homer?node=a%0d%0ab", "control character"},
	{"broken escape", "hep+udp://homer?node=%zz", "write %25"},
	{"space", "hep+udp://ho mer", "byte 0x20"},
	{"letters that are not ASCII", "hep+udp://hömer", "byte 0xc3"},
	{"IPv6 without brackets", "hep+udp://2001:db8::1", "in brackets"},
	{"bracket never closed", "hep+udp://[2001:db8::1", "without its ]"},
	{"bracket and rubbish", "hep+udp://[2001:db8::1]x", "behind the ]"},
	{"name in brackets", "hep+udp://[homer]", "for IPv6"},
	{"no IPv6 address", "hep+udp://[1:2]", "no IPv6 address"},
	{"short IPv4", "hep+udp://127.1", "neither an address nor a host name"},
	{"IPv4 as a number", "hep+udp://2130706433", "neither an address nor a host name"},
	{"IPv4 in hex", "hep+udp://0x7f000001", "neither an address nor a host name"},
	{"IPv4 with leading noughts", "hep+udp://010.0.0.1", "neither an address nor a host name"},
	{"IPv4 too large", "hep+udp://10.0.0.256", "neither an address nor a host name"},
	{"unspecified", "hep+udp://0.0.0.0", "no address to send to"},
	{"unspecified IPv6", "hep+udp://[::]", "no address to send to"},
	{"empty label", "hep+udp://a..b", "neither an address nor a host name"},
	{"label too long", "hep+udp://" + strings.Repeat("a", 64), "neither an address nor a host name"},
	{"name too long", "hep+udp://" + strings.Repeat("a.", 130) + "b", "253"},
	{"shell", "hep+udp://$(reboot)", "neither an address nor a host name"},
	{"endless", "hep+udp://homer?node=" + strings.Repeat("a", 5000), "longer than 4096"},
	{"long value", "hep+udp://homer?node=" + strings.Repeat("a", 300), "longer than 255"},
	{"local address that is none", "hep+udp://homer?from=eth0", "want udp:ADDRESS:PORT"},
	{"local address of another transport", "hep+udp://homer?from=tcp:10.0.0.1:5000", "want udp:ADDRESS:PORT"},
	{"local port of a stream", "hep+tcp://homer?from=tcp:10.0.0.1:5000", "from has a port"},
	{"local address of another family", "hep+udp://10.0.0.1?from=[::1]", "another address family"},
	{"cert without key", "hep+tls://homer?cert=c.pem", "belong together"},
	{"key without cert", "hep+tls://homer?key=k.pem", "belong together"},
	{"no truth value", "hep+tls://homer?insecure=maybe", "true or false"},
	{"hold or ignore", "hep+udp://homer?refused=drop", "hold or ignore"},
	{"fallback over UDP", "hep+udp://homer?fallback=hep+udp://other", "want hep+tcp:// or hep+tls://"},
	{"fallback that is none", "hep+udp://homer?fallback=nowhere", "no scheme"},
	{"fallback of a fallback", "hep+udp://homer?fallback=hep+tcp://b?fallback=hep+tcp://c", "unknown option"},
	{"plain SIP over TCP", "sip:10.0.0.1:5060;transport=tcp", "over udp only"},
	{"unknown parameter", "sip:10.0.0.1;lr", `unknown parameter "lr"`},
	{"empty sip", "sip:", "no host"},
}

func TestParseDestination_refusesTheRest(t *testing.T) {
	for _, tt := range badDestinations {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseDestination(tt.in)
			if err == nil {
				t.Fatalf("ParseDestination(%q) = %v, want an error", tt.in, d)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ParseDestination(%q) error = %q, want %q in it", tt.in, err, tt.want)
			}
			if strings.Contains(err.Error(), "hid") || strings.Contains(err.Error(), "den") && strings.Contains(tt.in, "den") {
				t.Errorf("error tells the secret: %v", err)
			}
			if len(err.Error()) > 600 {
				t.Errorf("error has %d bytes: %v", len(err.Error()), err)
			}
		})
	}
}

func TestDestination_isPrintedWithoutSecrets(t *testing.T) {
	d := parse(t, "hep+udp://homer?auth=hidden&node=edge&fallback=hep+tcp://big?auth=hidden")
	asJSON, err := json.Marshal(map[string]any{"to": d, "key": d.Auth})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		d.String(), d.Redacted(), fmt.Sprintf("%v %+v %#v %s %q", d, d, d, d, d), d.LogValue().String(),
		fmt.Sprintf("%v %+v %#v", d.Auth, d.Auth, d.Auth), string(asJSON), fmt.Sprint(&d), d.Name(),
	} {
		if strings.Contains(s, "hidden") {
			t.Errorf("tells the secret: %s", s)
		}
	}
	want := "hep+udp://homer:9060?auth=***&node=edge&fallback=hep+tcp://big:9060?auth=***"
	if got := d.String(); got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
}

func TestDestination_readsBackWhatItPrints(t *testing.T) {
	for _, s := range []string{
		"hep+udp://homer:9060", "hep+udp://homer:9060?version=2&capture-id=7&from=udp:10.0.0.1:5000&refused=ignore",
		"hep+udp://[fe80::1%25eth0]:9060", "hep+udp://homer:9060?node=a%26b%23c%25d+e%20f",
		"hep+tls://[2001:db8::1]:9061?from=2001:db8::2&ca=/etc/ca.pem&server-name=h.example.com&insecure=true",
		"sip+udp://10.0.0.1:5060?xheaders=true",
	} {
		d := parse(t, s)
		var again Destination
		if err := again.UnmarshalText([]byte(d.String())); err != nil {
			t.Errorf("%s: %v", d, err)
		}
		if again != d {
			t.Errorf("read back %v, want %v", again, d)
		}
	}
}

func TestDestination_NameStaysAndTellsApart(t *testing.T) {
	const homer = "hep+udp://homer.example.com:9060"
	name := parse(t, homer).Name()
	if want := "hep-homer_example_com-9060-84511976"; name != want {
		t.Errorf("Name() = %s, want %s: durable consumers are called so", name, want)
	}
	for _, s := range []string{
		"hep+udp://homer.example.com", "HEP+UDP://HOMER.example.com:9060", homer + "?auth=new",
		homer + "?refused=ignore", homer + "?fallback=hep+tcp://x",
	} {
		if got := parse(t, s).Name(); got != name {
			t.Errorf("Name of %s = %s, want %s", s, got, name)
		}
	}
	fit := regexp.MustCompile(`^[a-z0-9_-]{1,100}$`)
	names := map[string]string{name: homer}
	for _, s := range []string{
		homer + "?version=2", homer + "?capture-id=0", homer + "?capture-id=1", homer + "?node=a",
		homer + "?from=10.0.0.1", "hep+tcp://homer.example.com:9060", "hep+tls://homer.example.com:9060",
		"sip+udp://homer.example.com:9060", "sip+udp://homer.example.com:9060?xheaders=1", "hep+udp://homer-example-com:9060",
		"hep+udp://homer_example_com:9060", "hep+udp://[2001:db8::1]", "hep+udp://[fe80::1%25a*b]",
		"hep+udp://" + strings.Repeat("long.", 40) + "a", "hep+udp://" + strings.Repeat("long.", 40) + "b",
	} {
		got := parse(t, s).Name()
		if was, ok := names[got]; ok {
			t.Errorf("%s and %s have one name: %s", was, s, got)
		}
		names[got] = s
		if !fit.MatchString(got) {
			t.Errorf("Name of %s = %q, want only letters, digits, - and _", s, got)
		}
	}
}

func FuzzParseDestination(f *testing.F) {
	for _, tt := range badDestinations {
		f.Add(tt.in)
	}
	f.Add("hep+udp://[2001:db8::1]:9060?version=2&capture-id=7&from=udp:[::1]:5000&refused=ignore")
	f.Add("hep+udp://homer?auth=a&node=b%26&fallback=hep+tls://x?ca=y%26insecure=1")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDestination(s)
		if err != nil {
			return
		}
		again, err := ParseDestination(d.String())
		if err != nil {
			t.Fatalf("%q prints as %q: %v", s, d, err)
		}
		if again.String() != d.String() || again.Name() != d.Name() {
			t.Fatalf("%q reads back as %q", d, again)
		}
	})
}
