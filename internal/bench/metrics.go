package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// metrics are the values that a program serves at /metrics.
type metrics []metric

// A metric is one value with its name and labels as they are written.
type metric struct {
	name, labels string
	value        float64
}

// scrape asks a program for its metrics.
func scrape(ctx context.Context, addr string) (metrics, error) {
	page, err := get(ctx, "http://"+addr+"/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(string(page))
}

// parseMetrics reads the text format of Prometheus without timestamps.
func parseMetrics(page string) (metrics, error) {
	var list metrics
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ') // labels may hold spaces, values do not
		if i < 0 {
			return nil, fmt.Errorf("metric %q has no value", line)
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metric %q: %w", line, err)
		}
		name, labels, _ := strings.Cut(strings.TrimSpace(line[:i]), "{")
		list = append(list, metric{name, strings.TrimSuffix(labels, "}"), v})
	}
	return list, nil
}

// sum adds up the values of a name, over all labels or those that contain with.
func (m metrics) sum(name, with string) uint64 {
	var total float64
	for _, v := range m {
		if v.name == name && strings.Contains(v.labels, with) {
			total += v.value
		}
	}
	return uint64(total)
}
