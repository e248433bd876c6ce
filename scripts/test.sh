#!/usr/bin/env bash
# Installs what the tests need (Debian and Ubuntu, with apt, where it is
# missing) and runs them all with the race detector.
set -euo pipefail
cd "$(dirname "$0")/.."

sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

missing=()
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || missing+=(postgresql)
command -v kamailio >/dev/null || missing+=(kamailio)
ls /usr/lib/*/kamailio/modules/db_postgres.so >/dev/null 2>&1 || missing+=(kamailio-postgres-modules)
command -v sipp >/dev/null || missing+=(sip-tester)
command -v tshark >/dev/null || missing+=(tshark)
command -v gcc >/dev/null || missing+=(gcc libc6-dev) # the race detector wants cgo
if [ ${#missing[@]} -gt 0 ]; then
	echo "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	$sudo apt-get update -qq
	$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

./scripts/lint.sh
# What is installed now must be used: a missing part is a failure, not a skip.
export SIPTRACE_TEST_POSTGRES=require SIPTRACE_TEST_KAMAILIO=require SIPTRACE_TEST_TSHARK=require
go test -race -timeout 15m ./...
