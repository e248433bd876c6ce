package app

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/forward"
)

func TestPlaces_areOfTheHostThatNamesThem(t *testing.T) {
	nodes := []bus.NodeStatus{
		{Service: "tap", Name: "here", Host: "a", Listens: []string{"udp:127.0.0.1:9060", "udp:10.0.0.1:9060", "tcp:10.0.0.1:9060"}},
		{Service: "tap", Name: "there", Host: "b", Listens: []string{"udp:127.0.0.1:9061", "udp:10.0.0.2:9060", "udp:172.17.0.1:9060", "udp:[2001:db8::2]:9060"}},
		{Service: "hep-forwarder", Name: "f", Host: "b", Sends: []string{"udp:10.0.0.2>10.0.0.1:5888", "udp:10.0.0.2>127.0.0.1:5888", "udp:172.17.0.1>10.0.0.5:5888"}},
		{Service: "tap", Name: "odd", Host: "c", Listens: []string{"", "udp", "udp:x:1", "9060"}, Sends: []string{"", "udp:10.0.0.1", "tcp:10.0.0.1>10.0.0.2:1"}},
	}
	local := map[netip.Addr]bool{}
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "172.17.0.1"} {
		local[netip.MustParseAddr(a)] = true
	}
	n := newNeighbours(nil, nil, quietLog())
	n.known.Store(placesOf(nodes, "a", local))
	for text, want := range map[string]string{
		"udp:127.0.0.1:9060":     `tap "here"`,
		"udp:10.0.0.1:9060":      `tap "here"`,
		"tcp:10.0.0.1:9060":      `tap "here"`,
		"udp:10.0.0.2:9060":      `tap "there"`,
		"udp:[2001:db8::2]:9060": `tap "there"`,
		"udp:127.0.0.1:9061":     "", // of the other host
		"udp:172.17.0.1:9060":    "", // both have such an address; here it is ours
		"tcp:10.0.0.2:9060":      "",
		"udp:10.0.0.2:9061":      "",
	} {
		at, ok := parsePlace(text)
		if !ok {
			t.Fatal(text)
		}
		err := n.Refuse(at.network, at.addr)
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]bool{
		"udp:10.0.0.2>10.0.0.1:5888": true, "udp:10.0.0.2>127.0.0.1:5888": false, "udp:172.17.0.1>10.0.0.5:5888": false,
	} {
		w, ok := parseWay(text)
		if !ok {
			t.Fatal(text)
		}
		if got := n.copies(w.from, w.to); got != want {
			t.Errorf("copies on %s: %v, want %v", text, got, want)
		}
	}
}

func TestListens_namesEveryAddressOfASocketOnAll(t *testing.T) {
	one, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	all, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	got := listens([]net.Addr{one.LocalAddr(), all.Addr()})
	_, port, _ := net.SplitHostPort(all.Addr().String())
	for _, want := range []string{"udp:" + one.LocalAddr().String(), "tcp:127.0.0.1:" + port} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	for _, text := range got {
		at, ok := parsePlace(text)
		if !ok || at.addr.Addr().IsUnspecified() || at.addr.Addr().Zone() != "" {
			t.Errorf("%q is no place to send to", text)
		}
	}
}

func TestSends_areThoseOfPlainSIPAlone(t *testing.T) {
	var destinations []forward.Destination
	for _, s := range []string{"hep+udp://127.0.0.1", "sip:127.0.0.1:5888", "sip+udp://localhost:5889?from=127.0.0.7", "sip:nowhere.invalid"} {
		d, err := forward.ParseDestination(s)
		if err != nil {
			t.Fatal(err)
		}
		destinations = append(destinations, d)
	}
	got := sends(t.Context(), destinations)
	for _, want := range []string{"udp:127.0.0.1>127.0.0.1:5888", "udp:127.0.0.7>127.0.0.1:5889"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	for _, text := range got {
		if w, ok := parseWay(text); !ok || w.String() != text {
			t.Errorf("%q does not read back", text)
		}
	}
}
