package sipmsg_test

import (
	"fmt"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A datagram may hold more than one message.
func ExampleScan() {
	datagram := []byte("BYE sip:bob@example.com SIP/2.0\r\n" +
		"f: Alice <sip:alice@example.com>;tag=88\r\n" +
		"i: a84b4c76\r\n" +
		"CSeq: 2 BYE\r\n" +
		"l: 0\r\n" +
		"\r\n" +
		"SIP/2.0 200 OK\n" +
		"Call-ID: a84b4c76\n")

	var m sipmsg.Message
	for b := datagram; len(b) > 0; b = b[m.End:] {
		sipmsg.Scan(&m, b)
		fmt.Printf("%s %d %s %s [%s]\n", m.EventMethod(b), m.Status, m.CallID.Of(b), m.FromUser.Of(b), m.Flags)
	}
	// Output:
	// BYE 0 a84b4c76 alice [missing-to missing-via]
	//  200 a84b4c76  [bare-lf no-end missing-cseq missing-from missing-to missing-via]
}

func ExampleMessage_Header() {
	b := []byte("REGISTER sip:example.com SIP/2.0\r\nm: <sip:alice@192.0.2.4>\r\n ;expires=60\r\n\r\n")

	var m sipmsg.Message
	sipmsg.Scan(&m, b)
	contact, _ := m.Header(b, "Contact")
	fmt.Printf("%s\n", sipmsg.Unfold(nil, contact))
	// Output: <sip:alice@192.0.2.4> ;expires=60
}
