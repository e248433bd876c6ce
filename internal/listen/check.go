package listen

import (
	"fmt"
	"net"
	"net/netip"
)

// Check reads the files that the input names, and reports what is wrong with
// them. It opens no socket.
func (in Input) Check() error {
	if in.Scheme != schemeTLS {
		return nil
	}
	_, err := in.TLS.config()
	return err
}

// onLoopback reports whether only this machine can send to an address. What a
// name stands for is for others to say, so names are not believed.
func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// safeToTrust reports why senders of an input must not be trusted: what they
// mark chooses the table, and who gets copies.
func (in Input) safeToTrust() error {
	if !in.HEP.Trust || in.HEP.Auth != "" || in.TLS.CA != "" || onLoopback(in.Addr) {
		return nil
	}
	secure := ""
	if in.Scheme == schemeTLS {
		secure = ", or let in only certificates of your own authority (ca=FILE)"
	}
	return fmt.Errorf("trust=1 lets whoever can send here choose tables and destinations: "+
		"listen on 127.0.0.1 or [::1], or ask for a key (auth=KEY)%s", secure)
}
