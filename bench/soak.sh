#!/usr/bin/env bash
# Load of 100,000 instances: each sends a heartbeat and fetches the delta every 30 s (3,333 of each per second), and 20 of
# them change per second. The full registry is fetched once.
#
# bench/soak.sh [SECONDS, default 600] prints a line every 10 s: CPU share and memory of the server, and the rates and
# latencies that the load generator measures on the same machine. It first waits for 215 s. INSTANCES (100000), APPS (100)
# and CHANGES (20 per second) change the load. Needs Linux and cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

SECONDS_IN_ALL=${1:-600} INSTANCES=${INSTANCES:-100000} APPS=${APPS:-100} CHANGES=${CHANGES:-20}
ADDRESS=127.0.0.1:18762

cargo build --quiet --release --all-features --bin tower-eureka
cargo build --quiet --release --manifest-path bench/Cargo.toml --target-dir target/bench
load=target/bench/release/load
target/release/tower-eureka serve --listen "$ADDRESS" >/dev/null &
server=$!
trap 'kill $server' EXIT
"$load" wait "$ADDRESS"
"$load" populate "$ADDRESS" "$INSTANCES" "$APPS"
# Wait until the registrations have left the delta, since a real fleet does not start within three minutes.
sleep 215
"$load" soak "$ADDRESS" "$INSTANCES" "$APPS" "$CHANGES" "$SECONDS_IN_ALL" "$server"
