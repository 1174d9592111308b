#!/usr/bin/env bash
# Cost of replication: three nodes, of which the first receives the heartbeats and delta fetches of all instances and
# replicates to the others.
#
# bench/cluster.sh [SECONDS, default 60] prints the rates and latencies at the first node every 10 s, and then the CPU time
# and memory of each node, in all and per heartbeat. The others receive replicated heartbeats only. INSTANCES (10000), APPS
# (100) and CHANGES (2 per second) change the load. Needs Linux and cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

SECONDS_IN_ALL=${1:-60} INSTANCES=${INSTANCES:-10000} APPS=${APPS:-100} CHANGES=${CHANGES:-2}
target=${CARGO_TARGET_DIR:-target}
nodes=(127.0.0.1:18771 127.0.0.2:18772 127.0.0.3:18773)
urls=$(printf 'http://%s/eureka/,' "${nodes[@]}")

cargo build --quiet --release --all-features --bin tower-eureka
cargo build --quiet --release --manifest-path bench/Cargo.toml --target-dir "$target/bench"
load=$target/bench/release/load
servers=()
trap 'kill "${servers[@]}"' EXIT
for node in "${nodes[@]}"; do
    # Registrations leave the delta after 10 s, since a real fleet does not start within them.
    "$target/release/tower-eureka" serve --listen "$node" --eureka.instance.hostname="${node%:*}" \
        --eureka.client.service-url.defaultZone="${urls%,}" --eureka.server.wait-time-in-ms-when-sync-empty=0 \
        --eureka.server.retention-time-in-m-s-in-delta-queue=10000 >/dev/null 2>&1 &
    servers+=($!)
done
for node in "${nodes[@]}"; do "$load" wait "$node"; done
"$load" populate "${nodes[0]}" "$INSTANCES" "$APPS"
sleep 45

# User and system time in ticks of 10 ms.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
soak() { "$load" soak "${nodes[0]}" "$INSTANCES" "$APPS" "$CHANGES" "$1" "${servers[0]}"; }
# The first requests build what is cached from then on.
soak 30 >/dev/null
before=()
for server in "${servers[@]}"; do before+=("$(ticks "$server")"); done
report=$(soak "$SECONDS_IN_ALL" | tee >(cat >&2))
heartbeats=$(awk -F'|' 'NR > 1 { split($4, rate, " "); sum += rate[1] * 10 } END { print sum }' <<<"$report")
for number in "${!servers[@]}"; do
    used=$(($(ticks "${servers[number]}") - before[number]))
    awk -v node="${nodes[number]}" -v used="$used" -v heartbeats="$heartbeats" -v seconds="$SECONDS_IN_ALL" \
        '/VmRSS/ { printf "%s: %.1f %% of a core, %.1f µs per heartbeat, %d MB\n", node, used / seconds, used * 10000 / heartbeats, $2 / 1024 }' \
        "/proc/${servers[number]}/status"
done
