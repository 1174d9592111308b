#!/usr/bin/env bash
# Our registry, the Spring Cloud server and a bare hyper handler that answers the same bytes, one after the other under the same load.
#
# Prints tables for docs/benchmarks.md. CPU is user and system time of the server process; wrk runs on one thread beside it. Needs Linux,
# cargo, wrk, curl and, for the Spring server, a JDK 17 and Maven. Without these two, or with SPRING=no, it is left out.
#
# INSTANCES (10000), APPS (100), SECONDS_EACH (8), CONNECTIONS (16) change the load.
set -euo pipefail
cd "$(dirname "$0")/.."

export INSTANCES=${INSTANCES:-10000} APPS=${APPS:-100} INSTANCE_JSON=$PWD/bench/wrk/instance.json
SECONDS_EACH=${SECONDS_EACH:-8} CONNECTIONS=${CONNECTIONS:-16} SPRING=${SPRING:-yes}
ADDRESS=127.0.0.1:18761

for tool in cargo wrk curl; do
  command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done
if [ "$SPRING" = yes ] && ! { command -v java && command -v mvn; } >/dev/null; then
  echo "missing: java and mvn; the Spring server is left out" >&2
  SPRING=no
fi

cargo build --quiet --release --all-features --bin tower-eureka
cargo build --quiet --release --manifest-path bench/Cargo.toml --target-dir target/bench
load=target/bench/release/load
files=$(mktemp -d) server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$files"' EXIT

cpu_ms() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) * 1000 / hz }' "/proc/$server/stat"; }
rss_mb() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$server/status"; }
divide() { awk -v a="$1" -v b="$2" -v digits="$3" 'BEGIN { if (b > 0) printf "%.*f", digits, a / b; else printf "-" }'; }

# start COMMAND...: runs it, waits for its first answer, and prints how long that took
start() {
  local began
  began=$(date +%s%N)
  "$@" >"$files/server.log" 2>&1 &
  server=$!
  "$load" wait "$ADDRESS"
  echo "| start to first answer | $((($(date +%s%N) - began) / 1000000)) ms | | |"
}

stop() { kill "$server"; wait "$server" 2>/dev/null || true; server=; }

# measure NAME SCRIPT PATH
measure() {
  local before out requests rate p99 failed
  before=$(cpu_ms)
  out=$(wrk -t1 -c"$CONNECTIONS" -d"${SECONDS_EACH}s" --latency -s "bench/wrk/$2.lua" "http://$ADDRESS$3")
  requests=$(awk '/requests in/ { print $1 }' <<<"$out")
  rate=$(awk '/^Requests\/sec/ { printf "%d", $2 }' <<<"$out") p99=$(awk '/ 99%/ { print $2 }' <<<"$out")
  failed=$(awk -F: '/Non-2xx/ { print " (" $2 " failed)" }' <<<"$out")
  echo "| $1 | $(divide "$(awk -v a="$(cpu_ms)" -v b="$before" 'BEGIN { print (a - b) * 1000 }')" "$requests" 1) µs | $rate$failed | $p99 |"
}

measure_all() {
  measure heartbeat heartbeat /
  measure "register, 1 KB" register /
  measure "\`/apps\`, gzip, unchanged" get /eureka/apps
  measure "one application, gzip" get /eureka/apps/APP007
}

# change ROUNDS: CPU of a registration and the full answer after it
change() {
  local before
  "$load" change "$ADDRESS" "$APPS" 3
  before=$(cpu_ms)
  "$load" change "$ADDRESS" "$APPS" "$1"
  echo "| a registration and the first \`/apps\` after it, gzip | $(divide "$(awk -v a="$(cpu_ms)" -v b="$before" 'BEGIN { print a - b }')" "$1" 2) ms | | |"
}

registry() {
  echo "| memory at the start | $(rss_mb) MB | | |"
  "$load" populate "$ADDRESS" "$INSTANCES" "$APPS"
  echo "| memory with $INSTANCES instances | $(rss_mb) MB | | |"
}

header() { printf '\n### %s\n\n| | CPU per request | requests/s | p99 |\n|---|---|---|---|\n' "$1"; }

echo "$(date -u +%F), $(uname -sr), $(nproc) cores, $(awk -F: '/model name/ { print $2; exit }' /proc/cpuinfo | xargs)," \
  "$INSTANCES instances in $APPS applications, $CONNECTIONS connections, ${SECONDS_EACH} s each, load average before: $(cut -d' ' -f1 /proc/loadavg)"

header "tower-eureka"
start target/release/tower-eureka serve --listen "$ADDRESS"
registry
measure_all
change 200
for path in apps apps/APP007; do
  curl -s -H 'Accept: application/json' -H 'Accept-Encoding: gzip' -o "$files/${path//\//_}" "http://$ADDRESS/eureka/$path"
done
echo "| memory after the load | $(rss_mb) MB | | |"
stop

header "bare hyper handler, same bytes"
start target/bench/release/floor "$ADDRESS" "$files/apps" "$files/apps_APP007"
measure_all
stop

if [ "$SPRING" = yes ]; then
  project=tests/interop/server jar=tests/interop/server/target/eureka-server-1.jar
  [ -e "$jar" ] || mvn -B -q package -f "$project/pom.xml"
  header "Spring Cloud Netflix Eureka server"
  start java -jar "$jar" --server.port="${ADDRESS##*:}" --eureka.server.wait-time-in-ms-when-sync-empty=0 \
    --eureka.server.use-read-only-response-cache=false
  registry
  # The JVM compiles what it runs often.
  for script in heartbeat register get; do
    wrk -t1 -c"$CONNECTIONS" -d"${SECONDS_EACH}s" -s "bench/wrk/$script.lua" "http://$ADDRESS/eureka/apps/APP007" >/dev/null
  done
  measure_all
  change 20
  echo "| memory after the load | $(rss_mb) MB | | |"
  stop
fi
