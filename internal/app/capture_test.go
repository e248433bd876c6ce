package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

func TestTap_aFileThatIsCutEndsNoOtherInput(t *testing.T) {
	b := newBus(t)
	name := filepath.Join(t.TempDir(), "cut.pcap")
	head := "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x65\x00\x00\x00"
	if err := os.WriteFile(name, []byte(head+"\x01\x02\x03"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := TapFlags{
		In: []string{"hep+udp://" + b.hep, "pcap:" + name}, Mode: "all", AgentName: "edge",
		Buffer: 8 << 20, Compress: bus.CompressS2, Data: t.TempDir(),
	}
	b.tap = serve(t, TapModule(flags, bus.Options{URL: b.url, Name: "tap-edge"}, bus.StreamConfig{}))
	eventually(t, "the listener lives", func() bool {
		sender(t, b.hep)(calls("a", 1))
		return b.tail.calls()["a-0"] > 0
	})
}
