// Package capture holds the sources that look at packets: capture files in
// pcap and pcapng. What looks like SIP over UDP becomes an event, with the
// time, the addresses and the bytes it has in the file; everything else is
// counted by the reason for which it did not.
package capture
