package e2e

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// operator asks a service what operators ask it.
var operator = http.Client{Timeout: 10 * time.Second}

// address is where the service answers operators.
func (p *process) address(t *testing.T) string {
	t.Helper()
	addr, ok := p.logged(t, "http ready")["addr"].(string)
	if !ok {
		t.Fatalf("%s: the log does not say the address as text", p.name)
	}
	return "http://" + addr
}

// ask returns the answer to a GET.
func (p *process) ask(t *testing.T, path string) (code int, body string) {
	t.Helper()
	res, err := operator.Get(p.address(t) + path)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	return res.StatusCode, string(b)
}

// ready waits until the service waits for nothing.
func (p *process) ready(t *testing.T) *process {
	t.Helper()
	eventually(t, p.name+" is ready", func() bool {
		code, _ := p.ask(t, "/readyz")
		return code == http.StatusOK
	})
	return p
}

// metric is the sum of the series of a metric with the labels given, in pairs.
func (p *process) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	family := p.metrics(t)[name]
	if family == nil {
		t.Fatalf("%s has no metric %s", p.name, name)
	}
	sum := 0.0
	for _, m := range family.GetMetric() {
		if labelled(m, labels) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// metrics are all metrics of the service.
func (p *process) metrics(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	_, body := p.ask(t, "/metrics")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatalf("%s: metrics: %v", p.name, err)
	}
	return families
}

// labelled reports whether m has all the labels, given in pairs.
func labelled(m *dto.Metric, labels []string) bool {
	has := make(map[string]string)
	for _, l := range m.GetLabel() {
		has[l.GetName()] = l.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if has[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}
