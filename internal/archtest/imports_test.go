// Package archtest holds the structure of the tree: who may import whom.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/seed-452fa805/siptrace/"

// testHelpers are internal packages that tests and benchmarks of any package
// may import: they know nothing of siptrace.
var testHelpers = map[string]bool{"internal/pgserver": true, "internal/testcert": true, "internal/testport": true}

// TestImports_pointOneWay holds cmd → internal/app → internal/* → pkg/trace → pkg/hep.
func TestImports_pointOneWay(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(path, "_test.go")
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := refuse(filepath.ToSlash(dir), imported, test); why != "" {
				t.Errorf("%s imports %s: %s", path, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("read %d files, want the whole tree", files)
	}
}

// refuse says why package dir must not import path, or "".
func refuse(dir, path string, test bool) string {
	from := layer(dir)
	if strings.HasPrefix(path, "go.uber.org/fx") || strings.HasPrefix(path, "go.uber.org/dig") {
		if from != layerCmd && from != layerApp {
			return "fx belongs to cmd and internal/app"
		}
		return ""
	}
	own, ok := strings.CutPrefix(path, module)
	if !ok {
		if dir == "pkg/hep" && strings.Contains(path, ".") && !test {
			return "the codec uses the standard library only"
		}
		return ""
	}
	if test && testHelpers[own] {
		return ""
	}
	to := layer(own)
	switch {
	case to == layerCmd:
		return "commands are not imported"
	case to > from:
		return "the arrow points up"
	case to == layerInternal && from == layerInternal && room(dir) != room(own):
		return "siblings never import siblings"
	}
	return ""
}

// The layers, the lowest first.
const (
	layerHEP = iota
	layerTrace
	layerInternal
	layerApp
	layerCmd
)

func layer(dir string) int {
	switch {
	case dir == "pkg/hep":
		return layerHEP
	case strings.HasPrefix(dir, "pkg/"):
		return layerTrace
	case strings.HasPrefix(dir, "internal/app"), strings.HasPrefix(dir, "internal/bench"):
		return layerApp
	case strings.HasPrefix(dir, "cmd/"):
		return layerCmd
	case dir == "schema":
		return layerTrace
	}
	return layerInternal
}

// room is the package directly below internal that dir belongs to.
func room(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	if len(parts) < 2 {
		return dir
	}
	return parts[1]
}

// TestRefuse_catchesEveryWrongArrow shows that the test above can fail.
func TestRefuse_catchesEveryWrongArrow(t *testing.T) {
	tests := []struct {
		dir, path string
		wrong     bool
	}{
		{"cmd/tap", module + "internal/app", false},
		{"internal/app", module + "internal/bus", false},
		{"internal/bus", module + "internal/bus/natsd", false},
		{"internal/bus", module + "pkg/trace", false},
		{"internal/bus", module + "internal/listen", true},
		{"internal/bus", module + "internal/app", true},
		{"pkg/trace", module + "internal/bus", true},
		{"pkg/hep", module + "pkg/trace", true},
		{"pkg/hep", "golang.org/x/net/ipv4", true},
		{"internal/store", "go.uber.org/fx", true},
		{"internal/app", module + "cmd/tap", true},
	}
	for _, tt := range tests {
		if got := refuse(tt.dir, tt.path, false); (got != "") != tt.wrong {
			t.Errorf("refuse(%q, %q) = %q, want refused %v", tt.dir, tt.path, got, tt.wrong)
		}
	}
}
