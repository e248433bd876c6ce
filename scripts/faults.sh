#!/usr/bin/env bash
# Kills, stops, freezes, cuts off and fills up every part under a steady load,
# counts events by id at both ends, and prints one table; its progress goes to
# standard error. It takes half an hour on an otherwise idle machine, needs
# PostgreSQL installed, not running, and as root also fills a small disk.
#
#   RATE=2000 SECONDS_EACH=20 make faults    less load, for a shorter time
#   RUN=PostgreSQL make faults               only faults of that name
set -euo pipefail
cd "$(dirname "$0")/.."

table=$(mktemp)
trap 'rm -f "$table"' EXIT

status=0
SIPTRACE_TEST_POSTGRES=require SIPTRACE_FAULTS=full SIPTRACE_FAULTS_TABLE=$table \
	SIPTRACE_FAULTS_RATE=${RATE:-10000} SIPTRACE_FAULTS_SECONDS=${SECONDS_EACH:-60} \
	go test -v -count=1 -timeout 2h -run "TestFaults_.*${RUN:-}" ./internal/app/e2e >&2 || status=$?

if [ ! -s "$table" ] && [ "$status" = 0 ]; then
	echo "no fault of the name ${RUN:-}; they are:" >&2
	go test -list 'TestFaults_' ./internal/app/e2e | sed -n 's/^TestFaults_/  /p' >&2
	exit 1
fi

{
	printf 'FAULT\tWHAT HAPPENED\tSENT\tSTORED\tLOST\tDOUBLE\tCAUGHT UP (s)\n'
	cat "$table"
} | awk -F '\t' '
	{ for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) } fields = NF }
	END { for (r = 1; r <= NR; r++) { for (i = 1; i < fields; i++) printf "%-" width[i] "s  ", cell[r, i]; print cell[r, fields] } }'
exit "$status"
