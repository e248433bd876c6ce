package bench

import (
	"strconv"
	"strings"
)

// A goBench is one line of what go test -bench prints.
type goBench struct {
	pkg, name string             // "pkg/hep", "Append": without the module's path and the number of cores
	values    map[string]float64 // by unit: ns/op, allocs/op
}

// parseGoBench picks the results out of what go test -bench prints.
func parseGoBench(text string) []goBench {
	var list []goBench
	pkg := ""
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "pkg:":
			pkg = strings.TrimPrefix(f[1], module)
		case len(f) >= 4 && strings.HasPrefix(f[0], "Benchmark"):
			b := goBench{pkg: pkg, name: strings.TrimPrefix(f[0], "Benchmark"), values: make(map[string]float64)}
			if i := strings.LastIndexByte(b.name, '-'); i > 0 {
				b.name = b.name[:i]
			}
			for i := 2; i+1 < len(f); i += 2 { // behind the name and the number of rounds
				if v, err := strconv.ParseFloat(f[i], 64); err == nil {
					b.values[f[i+1]] = v
				}
			}
			list = append(list, b)
		}
	}
	return list
}

const module = "github.com/seed-452fa805/siptrace/"
