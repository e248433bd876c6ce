#!/usr/bin/env bash
# gofmt, vet and staticcheck over the tree; says what is wrong and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(gofmt -l cmd examples internal pkg schema)
if [ -n "$unformatted" ]; then
	echo "not formatted, run gofmt -w:" >&2
	echo "$unformatted" >&2
	exit 1
fi
go vet ./...
go tool staticcheck ./...
for os in darwin windows freebsd; do # the programs run on Linux; the rest must build
	GOOS=$os go build ./pkg/... ./internal/...
done
