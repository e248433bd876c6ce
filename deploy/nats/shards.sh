#!/bin/sh
# Writes nats-server.conf for a fleet with several streams of events: what
# workers may do with the stream SIPTRACE they may then do with SIPTRACE_0 to
# SIPTRACE_<N-1>.
#
#   sh shards.sh 4 < nats-server.conf > nats-server-4.conf
exec awk -v n="${1:?how many streams?}" '
	{ print }
	/"\$JS\.[^#]*SIPTRACE[."]/ {
		for (k = 0; k < n; k++) {
			line = $0
			gsub(/SIPTRACE\./, "SIPTRACE_" k ".", line)
			gsub(/SIPTRACE"/, "SIPTRACE_" k "\"", line)
			print line
		}
	}'
