package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"
)

// needSIP ends the test where Kamailio or SIPp is not installed.
func needSIP(t *testing.T) {
	t.Helper()
	var missing []string
	for _, name := range []string{"kamailio", "sipp"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if kamailioModules() == "" {
		missing = append(missing, "the modules of kamailio")
	}
	switch {
	case len(missing) == 0:
	case os.Getenv("SIPTRACE_TEST_KAMAILIO") == "require":
		t.Fatalf("not installed: %s", strings.Join(missing, ", "))
	default:
		t.Skipf("not installed: %s", strings.Join(missing, ", "))
	}
}

// kamailioModules is where Kamailio's modules are, or "".
func kamailioModules() string {
	for _, pattern := range []string{"/usr/lib/*/kamailio/modules/", "/usr/lib*/kamailio/modules/", "/usr/local/lib*/kamailio/modules/"} {
		if found, _ := filepath.Glob(pattern + "siptrace.so"); len(found) > 0 { // the patterns are well formed
			return filepath.Dir(found[0]) + "/"
		}
	}
	return ""
}

// kamailio starts Kamailio with a configuration of testdata. Values are what
// is filled in.
func kamailio(t *testing.T, config string, values map[string]any) *process {
	t.Helper()
	dir := t.TempDir()
	values["Modules"], values["Dir"] = kamailioModules(), dir
	text, err := template.New(config).Option("missingkey=error").ParseFiles(filepath.Join("testdata", config))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, config)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := text.Execute(file, values); err != nil {
		t.Fatal(err)
	}
	binary, err := exec.LookPath("kamailio")
	if err != nil {
		t.Fatal(err)
	}
	return launch(t, os.Environ(), binary, "-f", path, "-DD", "-E", "-m", "32", "-M", "8", "-b", "4194304",
		"-w", dir, "-Y", dir, "-P", filepath.Join(dir, "pid"))
}

// sipp starts SIPp with a scenario of testdata, at an address. It is silent;
// what went wrong is in its exit code.
func sipp(t *testing.T, scenario, at string, args ...string) *process {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "sipp", scenario))
	if err != nil {
		t.Fatal(err)
	}
	binary, err := exec.LookPath("sipp")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	return launch(t, append(os.Environ(), "TERM=dumb"), binary, append([]string{
		"-sf", path, "-i", host, "-p", port, "-ci", host, "-nostdin", "-nd", "-timeout", "30s", "-timeout_error",
	}, args...)...)
}

// A proxy is a Kamailio that reports its traffic by HEP, with the phones
// behind it.
type proxy struct {
	addr                        string
	answerer, ringer, optioneer string
	process                     *process
}

// startProxy starts a proxy that reports to tap in a version of HEP.
func startProxy(t *testing.T, version int, tap string) *proxy {
	t.Helper()
	return startProxyAt(t, freeAddr(t), version, tap, "")
}

// startProxyAt starts a proxy at an address that reports to tap, and writes rows
// of its own to a database unless that is "".
func startProxyAt(t *testing.T, addr string, version int, tap, database string) *proxy {
	t.Helper()
	p := &proxy{addr: addr, answerer: freeAddr(t), ringer: freeAddr(t), optioneer: freeAddr(t)}
	sipp(t, "uas_call.xml", p.answerer)
	sipp(t, "uas_cancel.xml", p.ringer)
	sipp(t, "uas_options.xml", p.optioneer)
	p.process = kamailio(t, "siptrace.cfg", map[string]any{
		"Listen": p.addr, "Version": version, "Tap": tap, "Database": database,
		"Answerer": p.answerer, "Ringer": p.ringer, "Pinged": p.optioneer,
	})
	p.awaitAnswer(t)
	return p
}

// awaitAnswer waits until the proxy relays an OPTIONS and the answer to it:
// then it is up, and so are the phones.
func (p *proxy) awaitAnswer(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("udp4", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n := 0
	eventually(t, "the proxy answers", func() bool {
		n++
		local := conn.LocalAddr().String()
		fmt.Fprintf(conn, "OPTIONS sip:bob@%[1]s SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bK-probe-%[3]d\r\n"+
			"From: <sip:probe@example.com>;tag=p\r\nTo: <sip:bob@example.com>\r\nCall-ID: probe-%[3]d@%[2]s\r\n"+
			"CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", p.addr, local, n)
		if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2048)
		got, err := conn.Read(b)
		return err == nil && strings.HasPrefix(string(b[:got]), "SIP/2.0 200")
	})
}

// Messages on the wire, in and out of the proxy, for one of each scenario when
// nothing is sent twice.
const (
	messagesOfCall     = 13 // INVITE 100 INVITE 180 180 200 200 ACK ACK BYE BYE 200 200
	messagesOfCancel   = 13 // INVITE 100 INVITE 180 180 CANCEL 200 CANCEL 200 487 ACK 487 ACK
	messagesOfRegister = 4  // REGISTER 401 REGISTER 200
	messagesOfOptions  = 4  // OPTIONS OPTIONS 200 200
)

// traffic sends n calls of each scenario through the proxy and returns how
// many messages the proxy has seen at least.
func (p *proxy) traffic(t *testing.T, n int) int {
	t.Helper()
	var callers []*process
	for _, scenario := range []string{"uac_call.xml", "uac_cancel.xml", "uac_register.xml", "uac_options.xml"} {
		callers = append(callers, sipp(t, scenario, freeAddr(t), p.addr,
			"-m", strconv.Itoa(n), "-r", "20", "-cid_str", "%u-%p@"+strings.TrimSuffix(scenario, ".xml")))
	}
	for _, c := range callers {
		if code := c.wait(t); code != 0 {
			t.Fatalf("sipp %s ended with code %d", c.cmd.Args[2], code)
		}
	}
	return n * (messagesOfCall + messagesOfCancel + messagesOfRegister + messagesOfOptions)
}
