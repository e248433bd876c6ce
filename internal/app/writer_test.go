package app

import (
	"log/slog"
	"testing"
)

func TestWriterFlags_theStoreHasTheLog(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if got := (&WriterFlags{}).options(nil, log).Log; got != log {
		t.Errorf("log is %v, want the service's", got)
	}
}
