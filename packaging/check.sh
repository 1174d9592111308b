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

# The instructions of the Dockerfile. Lists of words have no blanks in a word.
dockerfile=packaging/docker/Dockerfile
words() { sed -n "s/^$1\[\(.*\)\]\$/\1/p" "$dockerfile" | tr -d '",'; }
read -ra build <<<"$(sed -n 's/^RUN cargo build //p' "$dockerfile")"
read -ra entrypoint <<<"$(words 'ENTRYPOINT ')"
read -ra arguments <<<"$(words 'CMD ')"
read -ra health <<<"$(words 'HEALTHCHECK .*CMD ')"
read -ra variables <<<"$(sed -n 's/^ENV //p' "$dockerfile")"
user=$(sed -n 's/^USER \([0-9]*\):.*/\1/p' "$dockerfile")
[[ ${#build[@]} -gt 0 && ${#arguments[@]} -gt 0 && -n $user ]] || { echo "cannot read $dockerfile" >&2; exit 1; }

# `docker build` receives only the files that the ignore file names.
mkdir "$folder/context"
sed -n 's/^!//p' packaging/docker/Dockerfile.dockerignore | tar --create --files-from - | tar --extract --directory "$folder/context"
# With the options of the Dockerfile, except for the optimization.
options=()
for option in "${build[@]}"; do [[ $option == --release ]] || options+=("$option"); done
CARGO_TARGET_DIR=$(realpath "${CARGO_TARGET_DIR:-target}") \
    cargo check --quiet "${options[@]}" --manifest-path "$folder/context/Cargo.toml"
echo "container: its files suffice for cargo build ${build[*]}"

# The binary that the second stage copies is the one that the first stage builds, and the one that the commands start.
built=$(sed -n 's/^COPY --from=build \(.*\) \(\/tower-eureka\)$/\1/p' "$dockerfile")
[[ $built == /source/target/release/tower-eureka && " ${build[*]} " == *' --release '*' --bin tower-eureka '* ]] ||
    { echo "the container copies $built, which its build does not create" >&2; exit 1; }
[[ ${entrypoint[*]} == /tower-eureka && ${health[0]} == /tower-eureka ]] ||
    { echo "the container starts ${entrypoint[*]} and ${health[*]}, and has /tower-eureka alone" >&2; exit 1; }
echo 'container: it copies and starts the binary that it builds'

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

# The command and the health check of the Dockerfile with its variables and its user, in a network of their own, and without
# `/etc/hosts`, which the image lacks.
isolated=(unshare --net --pid --fork --mount --mount-proc --kill-child)
if command -v ip setpriv >/dev/null && "${isolated[@]}" sh -c 'ip link set lo up && mount -o remount,bind,ro /' 2>/dev/null; then
    chmod 711 "$folder"
    # The binary may be in a folder that the user cannot read.
    : >"$folder/container.sh.bin"
    cat >"$folder/container.sh" <<'SCRIPT'
set -eu
binary=$1 user=$2 variables=$3 arguments=$4 health=$5
ip link set lo up
mount --bind "$binary" "$0.bin"
mount --bind /dev/null /etc/hosts
mount --bind /dev/null /etc/resolv.conf
mount -o remount,bind,ro /
cd /
# The lists have no blanks in a word.
run() { setpriv --reuid "$user" --regid "$user" --clear-groups env -i $variables "$0.bin" "$@"; }
run $arguments &
server=$!
for _ in $(seq 100); do
    if run $health; then exit 0; fi
    kill -0 "$server" || exit 1
    sleep 0.1
done
exit 1
SCRIPT
    if ! "${isolated[@]}" sh "$folder/container.sh" "$binary" "$user" "${variables[*]}" "${arguments[*]}" "${health[*]:1}" \
        >"$folder/out" 2>&1; then
        echo "the health check of the container fails: ${health[*]}" >&2
        tail -n 20 "$folder/out" >&2
        exit 1
    fi
    echo "container: ${health[*]} succeeds beside ${entrypoint[*]} ${arguments[*]}, as user $user and without /etc/hosts"
else
    echo '!!! THE HEALTH CHECK OF THE CONTAINER WAS NOT RUN: no permission for namespaces, or no ip and setpriv here' >&2
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
