package hep_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// A packet on its way from an agent to a collector.
func Example() {
	sent := hep.Packet{
		Version:   3,
		Protocol:  hep.ProtocolUDP,
		Type:      hep.TypeSIP,
		Src:       netip.MustParseAddr("192.0.2.1"),
		Dst:       netip.MustParseAddr("198.51.100.7"),
		SrcPort:   5060,
		DstPort:   5060,
		CaptureID: 2001,
		Node:      []byte("proxy-1"),
		Payload:   []byte("OPTIONS sip:bob@example.com SIP/2.0\r\n\r\n"),
	}
	if err := sent.SetTime(time.Unix(1700000000, 123456000)); err != nil {
		fmt.Println(err)
		return
	}
	wire, err := sent.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}

	got, err := hep.Decode(wire)
	if err != nil {
		fmt.Println(err)
		return
	}
	at, _ := got.Time()
	fmt.Println(len(wire), "bytes")
	fmt.Println(at.UTC().Format(time.RFC3339Nano), string(got.Node))
	fmt.Println(netip.AddrPortFrom(got.Src, got.SrcPort), "→", netip.AddrPortFrom(got.Dst, got.DstPort))
	fmt.Println("has a VLAN:", got.Has(hep.FieldVLAN))
	// Output:
	// 151 bytes
	// 2023-11-14T22:13:20.123456Z proxy-1
	// 192.0.2.1:5060 → 198.51.100.7:5060
	// has a VLAN: false
}

// Chunks that Packet has no field for are reached one by one.
func ExampleChunks() {
	wire := hep.AppendChunk([]byte("HEP3\x00\x00"), hep.VendorGeneric, hep.ChunkMOS, []byte{1, 185})
	wire = hep.AppendChunk(wire, hep.VendorGenesys, hep.GenesysSiteID, []byte("berlin"))
	if err := hep.PatchLength(wire); err != nil {
		fmt.Println(err)
		return
	}
	for c, err := range hep.Chunks(wire) {
		if err != nil {
			fmt.Println(err)
			return
		}
		switch {
		case c.Vendor == hep.VendorGeneric && c.Type == hep.ChunkMOS:
			mos, _ := c.Uint()
			fmt.Printf("MOS %.2f\n", float64(mos)/100)
		case c.Vendor == hep.VendorGenesys:
			fmt.Printf("Genesys 0x%x: %s\n", c.Type, c.Body)
		}
	}
	// Output:
	// MOS 4.41
	// Genesys 0x82: berlin
}

// A collector reads packets off a TCP connection.
func ExampleReader() {
	stream := bytes.NewReader([]byte("HEP3\x00\x06" + "HEP3\x00\x0d\x00\x00\x00\x0b\x00\x07\x01" + "GET / HTTP/1.1\r\n"))
	r := hep.NewReader(stream)
	var d hep.Decoder
	var p hep.Packet
	for {
		packet, err := r.Next()
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := d.Decode(&p, packet); err != nil {
			fmt.Println(err)
			continue // it costs one packet, not the stream
		}
		fmt.Println("type", p.Type)
	}
	// Output:
	// type 0
	// type 1
	// hep: stream out of step at byte 19: looks like HTTP
}
