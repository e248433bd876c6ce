package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFaults_PostgreSQL_diskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	disk := t.TempDir()
	size := "64m"
	if fullFaults() {
		size = "512m" // for the rows of the lead
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size="+size+",mode=777"); err != nil {
		t.Skipf("no small disk: %v", err)
	}
	for dir := filepath.Dir(disk); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as another user
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	brief(t)
	server := breakable(t)
	dir := newDB(t, server.URL())
	var data string
	if err := dir.connect(t).QueryRow(t.Context(), "SHOW data_directory").Scan(&data); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(disk, int(info.Sys().(*syscall.Stat_t).Uid), -1); err != nil {
		t.Fatal(err)
	}
	execute(t, server.URL(), "CREATE TABLESPACE small LOCATION '"+disk+"'")
	execute(t, server.URL(), "CREATE DATABASE fault TABLESPACE small")

	d, nats := newDB(t, server.DatabaseURL("fault")), startNATS(t)
	tr := try(t, "PostgreSQL: disk full until somebody enlarges it", nats, d)
	writer := tr.startWriter()
	tr.begin()
	fill(t, disk)
	tr.await("the writer meets a full disk", func(context.Context) bool { return strings.Contains(writer.err.String(), "disk full: ") })
	tr.wait(tr.scale.dbAway)
	if !writer.alive() {
		t.Fatal("the writer has ended")
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=4g"); err != nil {
		t.Fatal(err)
	}
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the writer said so and tried again; %d events were rejected", rejections(writer, t))
}

// fill writes a file until there is no room.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for len(b) >= 4<<10 {
		if _, err := f.Write(b); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		b = b[:len(b)/2]
	}
}
