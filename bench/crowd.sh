#!/usr/bin/env bash
# Cost of connections that do little: 10,000 idle ones, then 50 that read the full registry slowly, each in another version.
#
# bench/crowd.sh prints the memory of the server and the latency of another client's heartbeats meanwhile, on a registry of
# INSTANCES (10000) in APPS (100) applications. IDLE (10000) and SLOW (50) set the numbers of connections. Needs Linux, cargo
# and as many file descriptors.
set -euo pipefail
cd "$(dirname "$0")/.."

INSTANCES=${INSTANCES:-10000} APPS=${APPS:-100} IDLE=${IDLE:-10000} SLOW=${SLOW:-50}
ADDRESS=127.0.0.1:18764
ulimit -n "$(ulimit -Hn)"

cargo build --quiet --release --all-features --bin tower-eureka
cargo build --quiet --release --manifest-path bench/Cargo.toml --target-dir target/bench
load=target/bench/release/load
target/release/tower-eureka serve --listen "$ADDRESS" >/dev/null &
server=$!
trap 'kill $server' EXIT
"$load" wait "$ADDRESS"
"$load" populate "$ADDRESS" "$INSTANCES" "$APPS"
"$load" idle "$ADDRESS" "$IDLE" "$APPS" "$server"
"$load" slow "$ADDRESS" "$SLOW" "$APPS" "$server"
