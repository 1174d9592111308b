#!/usr/bin/env bash
# Our registry, a bare hyper handler that responds with the same bytes, and the Spring Cloud server, under the same load.
#
# All three run at the same time, and one is loaded at a time, in ROUNDS (3) rounds of SECONDS_EACH (4) for each operation.
# The printed tables for docs/benchmarks.md show medians. CPU is the user and system time of the server process. wrk runs on
# one thread of the same machine. Needs Linux, cargo, wrk and curl. The Spring server needs a JDK 17 and Maven, and is left
# out without them or with SPRING=no.
#
# INSTANCES (10000), APPS (100) and CONNECTIONS (16) change the load.
#
# TLS=yes loads our registry and the bare handler over HTTPS, which needs openssl. AUTH=yes protects our registry with a user
# and password, which the bare handler ignores. Both leave the Spring server out:
#
#   TLS=yes AUTH=yes bench/compare.sh
set -euo pipefail
cd "$(dirname "$0")/.."

export INSTANCES=${INSTANCES:-10000} APPS=${APPS:-100} INSTANCE_JSON=$PWD/bench/wrk/instance.json
ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-4} CONNECTIONS=${CONNECTIONS:-16} SPRING=${SPRING:-yes}
TLS=${TLS:-no} AUTH=${AUTH:-no} scheme=http
OURS=127.0.0.1:18761 FLOOR=127.0.0.1:18762 JAVA=127.0.0.1:18763

for tool in cargo wrk curl $([ "$TLS" = no ] || echo openssl); do
  command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done
if [ "$TLS" = yes ] || [ "$AUTH" = yes ]; then SPRING=no; fi
if [ "$SPRING" = yes ] && ! { command -v java && command -v mvn; } >/dev/null; then
  echo "missing: java and mvn; the Spring server is left out" >&2
  SPRING=no
fi

cargo build --quiet --release --all-features --bin tower-eureka
cargo build --quiet --release --manifest-path bench/Cargo.toml --target-dir target/bench
load=target/bench/release/load
files=$(mktemp -d)
declare -A pid starts
trap 'kill "${pid[@]}" 2>/dev/null || true; rm -rf "$files"' EXIT
ours=() floor=() fetch=()
if [ "$TLS" = yes ]; then
  scheme=https
  export TLS_CA=$files/tls.crt
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout "$files/tls.key" -out "$TLS_CA" 2>"$files/openssl" ||
    { cat "$files/openssl" >&2; exit 1; }
  ours+=(--server.ssl.certificate="$TLS_CA" --server.ssl.certificate-private-key="$files/tls.key")
  floor+=("$TLS_CA" "$files/tls.key")
  fetch+=(--insecure)
fi
if [ "$AUTH" = yes ]; then
  AUTHORIZATION="Basic $(printf bench:password | base64)"
  export AUTHORIZATION
  ours+=(--spring.security.user.name=bench --spring.security.user.password=password)
  fetch+=(-H "Authorization: $AUTHORIZATION")
fi

cpu_us() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%d", ($12 + $13) * 1000000 / hz }' "/proc/${pid[$1]}/stat"; }
# own memory, and that of mapped files, which is shared with the page cache
memory() {
  [ -n "${pid[$1]:-}" ] || { printf -; return; }
  awk '/^RssAnon/ { own = $2 } /^RssFile/ { mapped = $2 } END { printf "%.1f + %.1f MB", own / 1024, mapped / 1024 }' "/proc/${pid[$1]}/status"
}
median() { sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
ratio() { awk -v a="${1:-0}" -v b="${2:-0}" 'BEGIN { if (a > 0 && b > 0) printf "%.2f", a / b; else printf "-" }'; }

# start ADDRESS COMMAND...: runs the command and waits for its first response
start() {
  local address=$1 began
  shift
  began=$(date +%s%N)
  "$@" >"$files/${address##*:}.log" 2>&1 &
  pid[$address]=$!
  "$load" wait "$address"
  starts[$address]="$((($(date +%s%N) - began) / 1000000)) ms"
}

# once ADDRESS SCRIPT PATH: prints CPU µs per request, requests/s, p99
once() {
  local before out
  before=$(cpu_us "$1")
  out=$(wrk -t1 -c"$CONNECTIONS" -d"${SECONDS_EACH}s" --latency -s "bench/wrk/$2.lua" "$scheme://$1$3")
  if grep -q Non-2xx <<<"$out"; then echo "failed requests at $1: $out" >&2; exit 1; fi
  awk -v cpu="$(($(cpu_us "$1") - before))" '/requests in/ { n = $1 } /^Requests\/sec/ { rate = $2 } / 99%/ { p99 = $2 }
    END { printf "%.2f %d %s\n", cpu / n, rate, p99 }' <<<"$out"
}

# row NAME SCRIPT PATH
row() {
  local round address
  rm -f "$files"/round.*
  for round in $(seq "$ROUNDS"); do
    for address in "$OURS" "$FLOOR" ${spring:-}; do
      once "$address" "$2" "$3" >>"$files/round.${address##*:}"
    done
  done
  local -A cpu rate
  for address in "$OURS" "$FLOOR" ${spring:-}; do
    cpu[$address]=$(cut -d' ' -f1 "$files/round.${address##*:}" | median)
    rate[$address]=$(cut -d' ' -f2 "$files/round.${address##*:}" | median)
  done
  echo "| $1 | ${cpu[$OURS]} | ${cpu[$FLOOR]} | ${cpu[$JAVA]:--} | $(ratio "${cpu[$OURS]}" "${cpu[$FLOOR]}")" \
    "| $(ratio "${cpu[$JAVA]:-}" "${cpu[$OURS]}") | ${rate[$OURS]} | ${rate[$FLOOR]} | ${rate[$JAVA]:--} |" \
    "$(cut -d' ' -f3 "$files/round.${OURS##*:}" | paste -sd' ') |"
}

# change ADDRESS ROUNDS: prints the CPU ms of a registration and the next full response
change() {
  [ -n "${pid[$1]:-}" ] || { printf -; return; }
  "$load" change "$1" "$APPS" 3
  local before
  before=$(cpu_us "$1")
  "$load" change "$1" "$APPS" "$2"
  awk -v us="$(($(cpu_us "$1") - before))" -v n="$2" 'BEGIN { printf "%.2f ms", us / n / 1000 }'
}

load_before=$(cut -d' ' -f1 /proc/loadavg)
start "$OURS" target/release/tower-eureka serve --listen "$OURS" "${ours[@]}"
ours_empty=$(memory "$OURS")
"$load" populate "$OURS" "$INSTANCES" "$APPS"
ours_full=$(memory "$OURS")
for path in apps apps/APP007; do
  curl -s "${fetch[@]}" -H 'Accept: application/json' -H 'Accept-Encoding: gzip' -o "$files/${path//\//_}" "$scheme://$OURS/eureka/$path"
done
start "$FLOOR" target/bench/release/floor "$FLOOR" "$files/apps" "$files/apps_APP007" "${floor[@]}"
if [ "$SPRING" = yes ]; then
  jar=tests/interop/server/target/eureka-server-1.jar
  [ -e "$jar" ] || mvn -B -q package -f tests/interop/server/pom.xml
  start "$JAVA" java -jar "$jar" --server.port="${JAVA##*:}" --eureka.server.wait-time-in-ms-when-sync-empty=0 \
    --eureka.server.use-read-only-response-cache=false
  spring_empty=$(memory "$JAVA") spring=$JAVA
  "$load" populate "$JAVA" "$INSTANCES" "$APPS"
  spring_full=$(memory "$JAVA")
  # Warm-up of the JVM's compiler.
  for script in heartbeat register get; do
    wrk -t1 -c"$CONNECTIONS" -d"${SECONDS_EACH}s" -s "bench/wrk/$script.lua" "http://$JAVA/eureka/apps/APP007" >/dev/null
  done
fi

echo "$(date -u +%F), $(uname -sr), $(nproc) cores, $(awk -F: '/model name/ { print $2; exit }' /proc/cpuinfo | xargs);" \
  "$INSTANCES instances of 1 KB in $APPS applications, $CONNECTIONS connections, $ROUNDS rounds of $SECONDS_EACH s," \
  "TLS: $TLS, access control: $AUTH, load average before: $load_before"
echo
echo "| CPU µs per request | ours | bare hyper | Spring | ours ÷ bare | Spring ÷ ours | requests/s: ours | bare | Spring | p99 of ours, each round |"
echo "|---|---|---|---|---|---|---|---|---|---|"
row heartbeat heartbeat /
row "register, 1 KB" register /
row "\`/apps\`, gzip, unchanged" get /eureka/apps
row "one application, gzip" get /eureka/apps/APP007
echo
echo "| | ours | Spring |"
echo "|---|---|---|"
echo "| CPU of a registration and the first \`/apps\` after it, gzip | $(change "$OURS" 200) | $(change "$JAVA" 20) |"
echo "| start to first response | ${starts[$OURS]} | ${starts[$JAVA]:--} |"
echo "| memory, own + of mapped files: at the start | $ours_empty | ${spring_empty:--} |"
echo "| memory: with $INSTANCES instances | $ours_full | ${spring_full:--} |"
echo "| memory: after the load | $(memory "$OURS") | $(memory "$JAVA") |"
