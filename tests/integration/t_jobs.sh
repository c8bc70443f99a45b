#!/usr/bin/env bash
# Jobs: work in the background is listed, waited for, paused and limited, over restarts too.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdsh
daemon_start
ok vpool create tank --raid mirror:2 --size 1G -o extent=4M "$T/d0" "$T/d1"

# job FILTER NAME: a field of the job.
job() { field ".jobs[]|select(.job==\"$2\")|$1" vpool jobs; }
job_is() { [ "$(job .state "$1")" = "$2" ]; }
# volume NAME: one with 32 MiB of data, attached.
volume() {
    ok vpool volume create "tank/$1" --size 128M
    ok vpool attach "tank/$1" --nbd "unix:$T/$1"
    ok nbdsh -u "$(uri "tank/$1" "$T/$1")" -c 'h.pwrite(b"j" * (32 << 20), 0); h.flush()'
}
# delete NAME [options]: the job's name is in $job.
delete() {
    ok vpool detach "tank/$1"
    job=$(vpool volume delete "tank/$1" "${@:2}" --json | jq -r .job)
}

step "nothing runs in a new pool"
ok vpool jobs
grep -q 'no jobs' <<<"$out" || fail "jobs: $out"
refused "no pool 'none'" vpool jobs none

step "a deletion is a job that ends when the space is back"
volume a
delete a
ok vpool jobs wait "$job"
same "$out" "job $job is done" "wait"
same "$(job '.kind + " " + .volume + " " + .unit' "$job")" "delete tank/a bytes" "the job"
same "$(job '.done >= 33554432 and .done == .total and .failed == 0 and .ended >= .started' "$job")" true "figures"
ok vpool jobs tank
grep -qE "^$job +delete +tank/a +done +100% of" <<<"$out" || fail "list: $out"

step "a resync after a kill is a job; no number is used twice"
volume b
ok nbdsh -u "$(uri tank/b "$T/b")" -c 'h.pwrite(b"k" * (1 << 20), 0); h.flush()'
daemon_kill
daemon_start
resync=$(field '.jobs[]|select(.kind=="resync").job' vpool jobs tank)
same "$(vpool jobs wait "$resync" -t 30 --json | jq -r .state)" done "wait"
same "$(job .volume "$resync")" tank/b "volume"
[ "${resync#tank/}" -gt "${job#tank/}" ] || fail "$resync comes after $job"

step "a deletion that is limited and paused holds its space, over a restart and a kill; then it goes on"
volume c
delete b
ok vpool jobs wait "$job"
leased() { field '.pools[0].space.leased_bytes' vpool status tank; }
delete c --limit 256K
ok vpool jobs pause "$job"
until_ok 10 eval 'vpool events | grep -q "job.paused.*tank/c: job $job"' || fail "no event: $(vpool events)"
daemon_stop
daemon_start
daemon_kill
daemon_start
same "$(job '.state + " " + (.limit|tostring) + " " + .volume' "$job")" "paused 262144 tank/c" "after restarts"
held=$(leased)
[ "$held" -gt 8388608 ] || fail "only $held bytes are leased"
refused "has not ended after 1 s: it is paused" vpool jobs wait "$job" -t 1
same "$(field '.pools[0].health|join(",")' vpool list)" jobs "health"
out=$(vpool status -x) && fail "status -x exited with 0: $out"
grep -q "job $job, the deletion of tank/c, is paused and holds [0-9]" <<<"$out" || fail "status -x: $out"
same "$(field '.findings[0].command' vpool doctor)" "vpool jobs resume $job" "what doctor advises"
same "$(leased)" "$held" "what a paused deletion holds"
ok vpool jobs resume "$job"
until_ok 10 eval '[ "$(leased)" -lt "$held" ]' || fail "nothing comes back: $(vpool jobs)"
[ "$(leased)" -gt 0 ] || fail "the limit has no effect: $(vpool jobs)"
until_ok 10 eval 'vpool events | grep -q "job.resumed.*tank/c"' || fail "no event: $(vpool events)"
same "$(job '.rate > 0 and .seconds_left > 0' "$job")" true "rate and time left"
ok vpool jobs limit "$job" none
ok vpool jobs wait "$job" -t 60
same "$(leased)" 0 "leased"
ok vpool status -x

step "a write that needs the space of a paused deletion waits, health says so, and it ends after the resume"
ok vpool create small --size 64M -o extent=4M "$T/e0"
ok vpool volume create small/old --size 32M
ok vpool attach small/old --nbd "unix:$T/old"
ok nbdsh -u "$(uri small/old "$T/old")" -c 'h.pwrite(b"o" * (32 << 20), 0); h.flush()'
ok vpool detach small/old
small=$(vpool volume delete small/old --limit 256K --json | jq -r .job)
ok vpool jobs pause "$small"
ok vpool volume create small/new --size 32M
ok vpool attach small/new --nbd "unix:$T/new"
nbdsh -u "$(uri small/new "$T/new")" -c 'h.pwrite(b"n" * (32 << 20), 0); h.flush()' >"$T/writer" 2>&1 &
writer=$!
waits_for_space() { [ "$(field '.health|join(",")' vpool volume show small/new)" = paused ]; }
until_ok 20 waits_for_space || fail "it does not wait: $(vpool status small)"
pool_tells_both() { [ "$(field '.pools[]|select(.name=="small").health|join(",")' vpool list)" = paused,space,jobs ]; }
until_ok 10 pool_tells_both || fail "health: $(vpool list)"
ok vpool jobs limit "$small" none
waits_for_space || fail "it does not wait any more: $(vpool status small)"
ok vpool jobs resume "$small"
wait $writer || fail "the write failed: $(cat "$T/writer")"
ok vpool jobs wait "$small" -t 60
ok vpool detach small/new --force

step "what cannot be done is refused, with the reason"
refused 'has ended: done' vpool jobs pause "$job"
refused "no job tank/4000" vpool jobs wait tank/4000
refused 'it is POOL/NUMBER' vpool jobs resume tank
refused "no pool 'none'" vpool jobs resume none/1
usage 'is no limit' vpool jobs limit "$job" fast
volume d
delete d --limit 256K
ok vpool jobs pause "$job"
refused 'a deletion cannot be cancelled' vpool jobs cancel "$job"

step "a pool can leave while a job of it is waited for"
vpool jobs wait "$job" >"$T/waits" 2>&1 &
waits=$!
until_ok 10 eval '[ "$(field .control_connections vpool info --stats)" -gt 1 ]'
ok vpool export tank
wait $waits && fail "the wait succeeded: $(cat "$T/waits")"
grep -q "no pool 'tank'" "$T/waits" || fail "$(cat "$T/waits")"
daemon_stop
