package hep_test

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// assigned is a row of testdata/assigned.tsv, the specification's tables.
type assigned struct {
	what     string
	number   uint16
	typ      string
	constant string
}

func assignedTable(t *testing.T) []assigned {
	t.Helper()
	b, err := os.ReadFile("testdata/assigned.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var rows []assigned
	for line := range strings.Lines(string(b)) {
		c := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		n, err := strconv.ParseUint(c[1], 0, 16)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, assigned{c[0], uint16(n), c[2], c[3]})
	}
	return rows
}

func TestConstants_areTheSpecifications(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "assigned.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := make(map[string]string)
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for i, name := range v.Names {
				constants[name.Name] = v.Values[i].(*ast.BasicLit).Value
			}
		}
		return true
	})
	for _, row := range assignedTable(t) {
		got, err := strconv.ParseUint(constants[row.constant], 0, 16)
		if err != nil || uint16(got) != row.number {
			t.Errorf("%s = %s, want %#x", row.constant, constants[row.constant], row.number)
		}
		delete(constants, row.constant)
	}
	for name := range constants {
		t.Errorf("%s is not in the table", name)
	}
}

// Every generic chunk of the table, at its width: read into a field or kept in
// Extra, and written again. At another width, a field of a number is refused.
func TestDecode_knowsEveryChunkOfTheTable(t *testing.T) {
	widths := map[string]int{"u8": 1, "u16": 2, "u32": 4, "u64": 8, "4": 4, "16": 16, "bytes": 5}
	for _, row := range assignedTable(t) {
		if row.what != "chunk" {
			continue
		}
		t.Run(row.constant, func(t *testing.T) {
			body := bytes.Repeat([]byte{1}, widths[row.typ])
			d := hep.Decoder{MaxInflate: -1}
			var p hep.Packet
			if err := d.Decode(&p, packet(t, chunk(row.number, body...))); err != nil {
				t.Fatal(err)
			}
			field := row.number <= hep.ChunkNode
			if got := p.Extra == nil; got != field {
				t.Errorf("extra %x, a field: %v", p.Extra, field)
			}
			wantChunk(0, row.number, body)(t, encode(t, p))
			err := d.Decode(&p, packet(t, chunk(row.number, append(body, 1)...)))
			if bad := field && row.typ != "bytes"; errors.Is(err, hep.ErrChunk) != bad {
				t.Errorf("one byte too many: error = %v, want ErrChunk: %v", err, bad)
			}
		})
	}
}
