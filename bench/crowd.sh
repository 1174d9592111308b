#!/usr/bin/env bash
# What connections cost that do little: 10,000 that say nothing, then 50 that take the whole registry slowly, each another state of it.
#
# bench/crowd.sh prints memory of the server and how another client's heartbeats fare meanwhile, on a registry of INSTANCES (10000) in
# APPS (100) applications. IDLE (10000) and SLOW (50) change the crowds. Needs Linux, cargo and as many file descriptors.
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
