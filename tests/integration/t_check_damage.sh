#!/usr/bin/env bash
# vpool-check on the disks of pools as they are found: after kill -9 under load, full, degraded, with
# deleted volumes, and all of that. They are clean; every kind of damage of the generator is noticed, or
# there was nothing to damage, and that is said. VPOOL_SEED repeats a run, VPOOL_DAMAGE_ROUNDS (1) tries more.
# long: yes
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdsh
seed=${VPOOL_SEED:-$((SRANDOM % 2147483648))} rounds=${VPOOL_DAMAGE_ROUNDS:-1}
say "VPOOL_SEED=$seed VPOOL_DAMAGE_ROUNDS=$rounds"
kinds=$(vpool-check --damage list)
disks=(d0 d1)
W=$(mktemp -d -p /dev/shm vpool-test.XXXXXX 2>/dev/null) || W=$T/copies # where copies are damaged
mkdir -p "$W"
trap 'rc=$?; rm -rf "$W"; (exit $rc); cleanup' EXIT

# A load that never ends by itself; it says when it has begun.
cat >"$T/load.py" <<'EOP'
import random
r = random.Random(SEED)
for n in range(1 << 30):
    try:
        h.pwrite(bytes([r.randrange(256)]) * 4096 * r.randrange(1, 40), r.randrange(6 << 20) & ~511)
        if n % 20 == 19:
            h.flush()
        if n % 11 == 10:
            h.trim(r.randrange(1 << 20), r.randrange(7 << 20) & ~4095)
    except nbd.Error:
        break # the daemon is gone
    if n == 60:
        open(BEGUN, "w").close()
EOP
sed -i "1i SEED, BEGUN = $seed, '$T/begun'" "$T/load.py"
kill_under_load() {
    rm -f "$T/begun"
    nbd_py "$(uri tank/v "$T/n")" "$T/load.py" 2>"$T/load.err" &
    local load=$!
    until_ok 20 test -e "$T/begun" || fail "no load: $(cat "$T/load.err")"
    daemon_kill
    wait "$load"
}
checked() { # DIRECTORY [option]
    local d=$1
    shift
    vpool-check --data "$@" "${disks[@]/#/$d/}"
}
released() { ! checked "$T" | grep -q 'is in use'; } # the kernel ends a killed daemon's requests first
clean() {
    until_ok 10 released || fail "$1: the disks stay in use"
    checked "$T" >"$T/out" 2>&1 || fail "seed $seed, $1: not clean: $(cat "$T/out")"
    checked "$T" --json >"$T/before"
}

# Of the log with an open end the last batch may go without a trace; a note says where the log ends.
log_end_is_told() {
    jq -e --slurpfile b "$T/before" '(.notes|any(.text|test("at the end, is not on this copy"))) or
        ((.notes|any(.text|test("it ends before batch"))) and .log.batches < $b[0].log.batches)' "$T/after" >/dev/null
}
damage_one() { # WHAT KIND SEED
    local rc=0
    cp --sparse=always "${disks[@]/#/$T/}" "$W/"
    vpool-check --damage "$2" --seed "$3" --i-mean-it "${disks[@]/#/$W/}" >"$T/out" 2>&1 || rc=$?
    if [ "$rc" != 0 ]; then
        [ "$rc" = 1 ] && grep -q 'nothing was damaged' "$T/out" || fail "$1, $2 $3: exit $rc: $(cat "$T/out")"
        none+=" $2"
        return
    fi
    checked "$W" --json >"$T/after" 2>&1 || rc=$?
    [ "$rc" -le 1 ] || fail "$1, $2 $3: vpool-check ended with $rc: $(tail -20 "$T/after")"
    [ "$rc" = 1 ] || { case $2 in log-*) log_end_is_told ;; *) false ;; esac } || fail "$1, $2 $3: not noticed: $(cat "$T/out")"
    noticed=$((noticed + 1))
}
damage_all() { # WHAT
    local kind round
    noticed=0 none=''
    for round in $(seq "$rounds"); do
        for kind in $kinds; do damage_one "$1" "$kind" $((seed + round)); done
    done
    say "  $noticed noticed; nothing to damage:${none:- -}"
    [ "$noticed" -ge $((20 * rounds)) ] || fail "$1: only $noticed damages"
}

step "killed under load"
daemon_start
ok vpool create tank --raid mirror:2 --size 40M -o extent=1M -o chunk=16K -o log-segment=64K "$T/d0" "$T/d1"
for v in v w x idle; do ok vpool volume create "tank/$v" --size 8M; done
ok vpool attach tank/v --nbd "unix:$T/n"
for v in w x idle; do
    ok vpool attach "tank/$v" --nbd "unix:$T/n$v"
    ok nbdsh -u "$(uri "tank/$v" "$T/n$v")" -c 'h.pwrite(b"w" * (3 << 20), 0); h.flush()'
done
ok vpool checkpoint tank
kill_under_load
clean "killed under load"
damage_all "killed under load"

step "killed under load, with a volume that was deleted and one that is being"
daemon_start
for v in w x; do ok vpool detach "tank/$v"; done
ok vpool volume delete tank/w
ok vpool checkpoint tank
ok vpool volume delete tank/x
kill_under_load
clean "deleted volumes"
damage_all "deleted volumes"

step "full"
daemon_start
ok vpool volume create tank/big --size 64M
ok vpool set tank/big full-policy=enospc
ok vpool attach tank/big --nbd "unix:$T/nbig"
cat >"$T/fill.py" <<'EOP'
import errno
for at in range(0, 64 << 20, 64 << 10):
    try:
        h.pwrite(bytes([at >> 16 & 255]) * (64 << 10), at)
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        break
else:
    raise SystemExit("it is not full")
h.flush()
EOP
ok nbd_py "$(uri tank/big "$T/nbig")" "$T/fill.py"
daemon_kill
clean "full"
damage_all "full"

step "degraded, and the disk that was away is back"
mv "$T/d1" "$T/away"
daemon_start
ok vpool status tank
grep -q degraded <<<"$out" || fail "not degraded: $out"
# Of the idle volume, which has all of it: in the full pool a write that needs room would wait.
ok nbdsh -u "$(uri tank/idle "$T/nidle")" -c 'h.pwrite(b"d" * (1 << 20), 0); h.flush()'
daemon_kill
mv "$T/away" "$T/d1"
clean "degraded"
damage_all "degraded"

step "a disk that is out may have its own last root torn"
slot=$(jq -r --arg d "$T/d1" '[.root.slots // .slots | .[] | select(.disk == $d and .slot < 8)] | max_by(.number).slot' "$T/before")
printf 'torn' | dd of="$T/d1" bs=1 seek=$((65536 + 4096 * slot + 200)) conv=notrunc status=none
clean "degraded, with a torn root on the disk that is out"
grep -q "slot $slot is torn; the disk is out of service" "$T/out" || fail "not noted: $(cat "$T/out")"

step "closed"
daemon_start
ok vpool detach tank/big
ok vpool volume delete tank/big # there is room for the log again
daemon_stop
clean "closed"
damage_all "closed"
