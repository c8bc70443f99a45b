#!/usr/bin/env bash
# Jobs: work in the background is listed, over restarts too.
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
# delete NAME: the job's name is in $job.
delete() {
    ok vpool detach "tank/$1"
    job=$(vpool volume delete "tank/$1" --json | jq -r .job)
}

step "nothing runs in a new pool"
ok vpool jobs
grep -q 'no jobs' <<<"$out" || fail "jobs: $out"
refused "no pool 'none'" vpool jobs none

step "a deletion is a job that ends when the space is back"
volume a
delete a
until_ok 10 job_is "$job" done || fail "not done: $(vpool jobs)"
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
until_ok 10 job_is "$resync" done || fail "not done: $(vpool jobs)"
same "$(job .volume "$resync")" tank/b "volume"
[ "${resync#tank/}" -gt "${job#tank/}" ] || fail "$resync comes after $job"
daemon_stop
