#!/usr/bin/env bash
# Checks the unit, the manifests, the files of the container and the behavior in it with the tools that are here, and says
# which checks were not run.
#
# packaging/check.sh [BINARY]: the binary that the unit starts, by default that of the debug build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/tower-eureka}")

folder=$(mktemp -d)
outer=
trap '[[ -z $outer ]] || kill -KILL "$outer" 2>/dev/null || true; rm -rf "$folder"' EXIT

# `docker build` receives only the files that the ignore file names.
mkdir "$folder/context"
sed -n 's/^!//p' packaging/docker/Dockerfile.dockerignore | tar --create --files-from - | tar --extract --directory "$folder/context"
CARGO_TARGET_DIR=$(realpath "${CARGO_TARGET_DIR:-target}") \
    cargo check --quiet --locked --all-features --bin tower-eureka --manifest-path "$folder/context/Cargo.toml"
echo 'container: its files suffice to build'

if command -v systemd-analyze >/dev/null; then
    # The binary is not installed here.
    sed "s|^ExecStart=/usr/bin/tower-eureka|ExecStart=$binary|" packaging/systemd/tower-eureka.service >"$folder/tower-eureka.service"
    SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$folder/tower-eureka.service"
    echo 'unit: verified by systemd-analyze'
else
    echo '!!! THE UNIT WAS NOT VERIFIED: no systemd-analyze here' >&2
fi

# As in a container: PID 1 of its own processes, on a root that is read-only, with no variables.
if unshare --pid --fork --mount --mount-proc --kill-child mount -o remount,bind,ro / 2>/dev/null; then
    for signals in TERM 'INT' 'TERM TERM'; do
        # The address of the previous server is no longer valid.
        : >"$folder/out"
        unshare --pid --fork --mount --mount-proc --kill-child \
            sh -c 'mount -o remount,bind,ro / && cd / && exec env -i "$0" serve --listen 127.0.0.1:0' "$binary" \
            >"$folder/out" 2>"$folder/err" &
        outer=$!
        until url=$(grep -o 'http://.*' "$folder/out"); do
            kill -0 "$outer" || { cat "$folder/err" >&2; exit 1; }
            sleep 0.1
        done
        "$binary" health --url "$url"
        # The file has no line break.
        read -r inner _ <"/proc/$outer/task/$outer/children" || [[ -n $inner ]]
        grep -q '^NSpid:.*[[:space:]]1$' "/proc/$inner/status"
        # A second signal may arrive after the end.
        for signal in $signals; do kill -s "$signal" "$inner" 2>/dev/null || true; done
        status=0
        wait "$outer" || status=$?
        # The second signal stops at once, with 128 plus its number.
        [[ $status == 0 || $signals == 'TERM TERM' && $status == 143 ]] || {
            echo "PID 1: exit code $status after $signals" >&2
            cat "$folder/err" >&2
            exit 1
        }
        outer=
    done
    echo 'container: works as PID 1 on a read-only root, and stops on SIGTERM and SIGINT'
else
    echo '!!! NOT RUN AS PID 1 ON A READ-ONLY ROOT: no permission for namespaces here' >&2
fi

manifests=packaging/kubernetes/tower-eureka.yaml
if command -v kubernetes-validate >/dev/null; then
    kubernetes-validate --strict "$manifests"
elif command -v kubeconform >/dev/null; then
    # Fetches the schemas.
    if ! output=$(kubeconform -strict -summary "$manifests" 2>&1); then
        echo "$output" >&2
        grep -q 'Invalid: 0' <<<"$output" || exit 1
        echo '!!! THE MANIFESTS WERE NOT CHECKED: kubeconform cannot fetch the schemas' >&2
    else
        echo "$output"
    fi
else
    echo '!!! THE MANIFESTS WERE NOT CHECKED: no kubernetes-validate (pip install kubernetes-validate) and no kubeconform here' >&2
fi
