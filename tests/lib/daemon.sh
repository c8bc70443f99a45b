# Sourced by integration tests: a private daemon in a directory of its own, ended by its pid.
#   . "$(dirname "$0")/../lib/daemon.sh"
# VPOOL_BUILD names the build (build/release). Everything of a test is in $T and goes away with it.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top" || exit 2
bin=${VPOOL_BUILD:-build/release}
case $bin in /*) ;; *) bin=$top/$bin ;; esac
PATH=$bin:/usr/bin:/bin:/usr/sbin:/sbin:$PATH # nbdsh wants the system's python3
slow=${VPOOL_SLOW:-} # set for sanitizers: loops are shorter, deadlines longer
T=$(mktemp -d "${TMPDIR:-/tmp}/vpool-test.XXXXXX")
export VPOOL_SOCKET=$T/s
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
daemon_pid='' steps=0

say() { printf '%s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
skip() {
    printf 'SKIPPED: %s\n' "$*"
    exit 77
}
need() { for c in "$@"; do command -v "$c" >/dev/null || skip "no $c here"; done; }

# Announces a behaviour; what follows tests it.
step() {
    steps=$((steps + 1))
    printf -- '- %s\n' "$*"
}

# until SECONDS COMMAND…: polls for a state.
until_ok() {
    local end=$((SECONDS + $1 * (${slow:+3} + 1)))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}

daemon_start() { # [options]: waits until it answers
    echo 'import-wait = 0;' >"$T/daemon.conf" # another -c in the options takes its place
    vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" -c "$T/daemon.conf" --foreground "$@" >>"$T/log" 2>&1 &
    daemon_pid=$!
    until_ok 10 daemon_answers || {
        cat "$T/log" >&2
        fail "the daemon does not answer"
    }
}
daemon_answers() { vpool list || ! [ -e "/proc/$daemon_pid" ]; }
daemon_stop() { # SIGTERM; fails unless it ends with 0
    local rc=0
    [ -n "$daemon_pid" ] || return 0
    kill "$daemon_pid"
    wait "$daemon_pid" || rc=$?
    daemon_pid=''
    [ "$rc" = 0 ] || {
        tail -40 "$T/log" >&2
        fail "the daemon ended with $rc"
    }
}
daemon_kill() {
    kill -9 "$daemon_pid"
    wait "$daemon_pid" 2>/dev/null
    daemon_pid=''
}

# ok COMMAND…: must succeed; its output is in $out.
ok() {
    out=$("$@" 2>&1) || fail "'$*' failed: $out"
}
# refused PATTERN COMMAND…: must exit with 1 and say PATTERN.
refused() {
    local rc=0 want=$1
    shift
    out=$("$@" 2>&1) || rc=$?
    [ "$rc" = 1 ] || fail "'$*' exited with $rc instead of 1: $out"
    grep -qE -- "$want" <<<"$out" || fail "'$*' does not say '$want': $out"
}
# usage PATTERN COMMAND…: must exit with 2 and say PATTERN.
usage() {
    local rc=0 want=$1
    shift
    out=$("$@" 2>&1) || rc=$?
    [ "$rc" = 2 ] || fail "'$*' exited with $rc instead of 2: $out"
    grep -qE -- "$want" <<<"$out" || fail "'$*' does not say '$want': $out"
}
# same ACTUAL WANTED WHAT
same() { [ "$1" = "$2" ] || fail "$3: '$1' instead of '$2'"; }
# field FILTER COMMAND…: one value out of a command's --json.
field() {
    local filter=$1
    shift
    "$@" --json | jq -r "$filter"
}
# nbd_py URI FILE: the statements of FILE with a connected handle h.
nbd_py() { nbdsh -u "$1" -c "$(cat "$2")"; }
uri() { echo "nbd+unix:///$1?socket=$2"; }

cleanup() {
    local rc=$?
    if [ -n "$daemon_pid" ] && [ -e "/proc/$daemon_pid" ]; then
        kill -9 "$daemon_pid" 2>/dev/null
        wait "$daemon_pid" 2>/dev/null
    fi
    if [ $rc != 0 ] && [ $rc != 77 ] && [ -s "$T/log" ]; then
        say "--- the daemon's log ends with:"
        tail -30 "$T/log"
    fi
    grep -qE 'ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:' "$T/log" 2>/dev/null && {
        grep -nE -A30 'Sanitizer|runtime error:' "$T/log" | head -80
        rc=1
    }
    grep -rhoE '"uuid": *"[0-9a-f-]{36}"' "$T" --include=pools.json 2>/dev/null | grep -oE '[0-9a-f-]{36}' |
        while read -r uuid; do rm -f "/dev/shm/vpool-$uuid-"*; done # what a killed daemon kept
    [ -n "${VPOOL_KEEP:-}" ] && say "kept $T" || rm -rf "$T"
    exit $rc
}
trap cleanup EXIT
trap 'exit 1' INT TERM
