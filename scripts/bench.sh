#!/usr/bin/env bash
# Runs every benchmark, twice or RUNS times, and prints one table. It needs
# PostgreSQL installed, not running, and about 20 GB on a disk for a while.
#
#   RUNS=1 make bench         once: a quarter of an hour less
#   OUT=results make bench    keep what every run has measured
#   DIR=/srv/tmp make bench   write there instead of the temporary folder
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BIN:-bin}
out=${OUT:-$(mktemp -d)}
[ -n "${OUT:-}" ] || trap 'rm -rf "$out"' EXIT
mkdir -p "$out"
place=(--bin "$bin")
[ -z "${DIR:-}" ] || place+=(--dir "$DIR")

CGO_ENABLED=0 go build -o "$bin/nats-server" github.com/nats-io/nats-server/v2

echo "codecs" >&2
go test -run '^$' -count 5 -bench '^(BenchmarkAppend|BenchmarkDecode|BenchmarkFrame)$|^BenchmarkScan$/^INVITE$' \
	./pkg/hep ./pkg/trace ./pkg/trace/sipmsg >"$out/codecs.txt"

for run in $(seq "${RUNS:-2}"); do
	echo "run $run" >&2
	"$bin/ctl" bench pipeline "${place[@]}" --json >"$out/pipeline-$run.json"
	"$bin/ctl" bench writer "${place[@]}" --json >"$out/writer-postgres-$run.json"
	"$bin/ctl" bench writer "${place[@]}" --json --store sqlite --rows 1200000 >"$out/writer-sqlite-$run.json"
done

"$bin/ctl" bench report "$out"/*.txt "$out"/*.json
