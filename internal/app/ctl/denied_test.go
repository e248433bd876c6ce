package ctl

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func TestConnect_saysWhatNATSDoesNotLetTheUserDo(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, Users: []*server.User{{
		Username: "ctl", Password: "secret",
		Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	address := "nats://ctl:secret@" + s.Addr().String()
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"trace", "check", "--nats", address}, strings.NewReader(""), &stdout, &stderr); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{`Violation for Publish to "$JS.API.`, "docs/security.md"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("said %q, want %q in it", &stderr, want)
		}
	}
	stderr.Reset()
	wrong := strings.Replace(address, "secret", "wrong", 1)
	if Run(t.Context(), []string{"trace", "check", "--nats", wrong}, strings.NewReader(""), &stdout, &stderr); !strings.Contains(stderr.String(), "check user and password") {
		t.Errorf("with a wrong password: %q", &stderr)
	}
}
