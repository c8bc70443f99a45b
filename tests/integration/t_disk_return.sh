#!/usr/bin/env bash
# Disks come and go under a daemon: one that was away returns, another device takes the place of one
# that is lost, an operator takes one out. What could be lost by that is refused.
# long: yes
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy mkfs.ext4
mkdir "$T/here" "$T/away"
echo "disk-dirs = (\"$T/here\"); import-wait = 0;" >"$T/conf"
conf=(-c "$T/conf")
disk() { field ".pools[0].disks[$1].$2" vpool status tank; } # N FIELD
risk() { field '.pools[0].risk|[.survives, .degraded_bytes, .lost_bytes]|tojson' vpool status tank; }
disk_is() { [ "$(disk "$1" state)" = "$2" ]; }
whole() { # the pool, and its volumes: health is looked at once a second
    until_ok 20 is_whole || fail "$(vpool status tank; vpool jobs)"
}
is_whole() { [ "$(field '.pools[0]|[.state] + .health + (.warnings|map(.text))|join(" ")' vpool status tank)" = online ]; }
came() { # waits for the job of the last command
    local job
    job=$(jq -r '.job // empty' <<<"$out")
    [ -n "$job" ] || fail "no job: $out"
    ok vpool jobs wait "$job" -t 20
}
told() { vpool events | grep -qE "$1"; }
event() { until_ok 5 told "$1" || fail "no event '$1': $(vpool events)"; }
put() { # FILE
    until_ok 20 test -S "$T/n" || fail "no attachment"
    ok nbdcopy --flush "$1" "$(uri tank/v "$T/n")"
}
data_is() { # FILE
    until_ok 20 test -S "$T/n" || fail "no attachment"
    ok nbdcopy "$(uri tank/v "$T/n")" "$T/back"
    cmp "$1" "$T/back" || fail "the data differ"
}
only() { # DISK…: the daemon begins with these, the others are not here
    local d
    for d in "$T"/here/*; do mv "$d" "$T/away/"; done
    for d in "$@"; do mv "$T/away/$d" "$T/here/"; done
    daemon_start "${conf[@]}"
}
head -c 48M /dev/urandom >"$T/a"
head -c 48M /dev/urandom >"$T/b"
head -c 48M /dev/urandom >"$T/c"

step "a disk that was away returns, and gets what it missed"
daemon_start "${conf[@]}"
ok vpool create tank --raid mirror:2 --size 192M -o extent=4M "$T/here/d0" "$T/here/d1"
ok vpool volume create tank/v --size 48M
ok vpool attach tank/v --nbd "unix:$T/n"
put "$T/a"
uuid=$(disk 1 uuid)
daemon_kill
only d0
[ "$(field '.pools[0].state' vpool status tank)" = degraded ] || ok vpool import tank
out=$(vpool doctor --json)
same "$(jq -r '.findings[]|select(.text|test("^disk 1 .* is missing")).command' <<<"$out")" "vpool online tank 1" "doctor"
put "$T/b"
refused 'missing.*disk-dirs.*vpool online tank 1 PATH' vpool online tank 1
refused 'in service' vpool online tank 0
refused "no disk '7'" vpool online tank 7
refused 'no other disk' vpool offline tank 0
mv "$T/away/d1" "$T/here/d9"
refused 'is disk 0|in use' vpool online tank 1 "$T/here/d0"
refused 'no other disk' vpool offline tank 0 --dry-run
ok vpool online tank "$uuid" --dry-run
grep -q "^nothing was changed; disk 1 of pool tank, $T/here/d9: [0-9.]*M in use there; 0 disks may be lost now without a loss of data, 1 afterwards" <<<"$out" ||
    fail "dry run: $out"
disk_is 1 missing || fail "a dry run changed it: $(disk 1 state)"
same "$(disk 1 uuid)" "$uuid" "the uuid after a dry run"
ok vpool online tank "$uuid" --json
same "$(jq -r '.path + " " + .state' <<<"$out")" "$T/here/d9 rebuilding" "the disk"
came
whole
[ "$(disk 1 uuid)" != "$uuid" ] || fail "it has its old uuid"
same "$(risk)" '[1,0,0]' "risk"
event 'disk\.returns +tank: disk 1'
event 'disk\.rebuilt +tank: disk 1'
daemon_kill

step "… so that it has all, without the other one"
only d9
[ "$(field '.pools[0].state' vpool status tank)" = degraded ] || ok vpool import tank
same "$(field '.pools[0].risk|[.survives == 0, .degraded_bytes == .data_bytes, .data_bytes >= 48 * 1048576, .lost_bytes]|tojson' vpool status tank)" \
    '[true,true,true,0]' "risk"
ok vpool status tank
grep -q 'survives  no loss of a disk without a loss of data; [0-9.]*M lack a copy' <<<"$out" || fail "status: $out"
data_is "$T/b"
daemon_stop
ok vpool-check --data "$T/here/d9" "$T/away/d0"
grep -q 'wrong\|problem' <<<"$out" && fail "vpool-check: $out"

step "a rebuild goes on after a kill; status, jobs and vpool-check show it"
only d9 d0
[ "$(field '.pools[0].state' vpool status tank)" = degraded ] || ok vpool import tank
same "$(disk 0 state)" stale "the other disk"
ok vpool online tank "$T/here/d0" --limit 2M --json
job=$(jq -r .job <<<"$out")
until_ok 5 eval '[ "$(disk 0 rebuild.done)" -gt 0 ]' || fail "nothing is done: $(vpool jobs)"
ok vpool status tank
grep -qE "d0 +rebuilding [0-9]+%" <<<"$out" || fail "status: $out"
ok vpool jobs
grep -qE "^$job +rebuild +disk 0 \($T/here/d0\) +running +[0-9]+% of" <<<"$out" || fail "jobs: $out"
same "$(field '.jobs[0]|[.volume, .disk.index]|tojson' vpool jobs)" '[null,0]' "what it works on"
refused 'no other disk' vpool offline tank 1
ok vpool volume create tank/w --size 8M # new space
ok vpool attach tank/w --nbd "unix:$T/w"
head -c 8M "$T/c" >"$T/new"
ok nbdcopy --flush "$T/new" "$(uri tank/w "$T/w")"
daemon_kill
checked() { vpool-check "$T/here/d0" "$T/here/d9" --json | jq -r '[.root.disks[].state]|join(" ")'; }
until_ok 5 eval '[ "$(checked)" = "rebuilding online" ]' || fail "vpool-check: $(checked)" # once the killed one lets go
daemon_start "${conf[@]}"
until_ok 5 disk_is 0 rebuilding || fail "it is $(disk 0 state)"
same "$(field ".jobs[]|select(.job==\"$job\")|.state + \" \" + (.limit|tostring)" vpool jobs)" \
    "running 2097152" "the job after a kill"
data_is "$T/b"
ok vpool jobs limit "$job" none
ok vpool jobs wait "$job" -t 20
whole

step "an operator takes a disk out; another device takes its place while a client writes"
ok vpool offline tank 1 --dry-run --json
same "$(jq -r '[.dry_run, .disk, .bytes >= 48 * 1048576, .survives, .survives_then]|tojson' <<<"$out")" '[true,1,true,1,0]' "dry run"
disk_is 1 online || fail "a dry run changed it: $(disk 1 state)"
ok vpool offline tank 1
event 'disk\.offline +tank: disk 1'
disk_is 1 ejected || fail "it is $(disk 1 state)"
refused 'out of service already' vpool offline tank 1
refused 'disk 0 .*in service' vpool replace tank 0 "$T/here/d2"
truncate -s 16M "$T/here/small"
refused 'small has 16M; disk 1 of pool tank uses [0-9.]+M' vpool replace tank 1 "$T/here/small"
truncate -s 256M "$T/here/d2"
mkfs.ext4 -q "$T/here/d2"
refused 'd2 holds a file system.*ext4.*--force' vpool replace tank 1 "$T/here/d2"
refused 'd2 holds a file system.*ext4.*--force' vpool replace tank 1 "$T/here/d2" --dry-run
sum=$(sha256sum "$T/here/d2")
ok vpool replace tank 1 "$T/here/d2" --force --dry-run
same "$(sha256sum "$T/here/d2")" "$sum" "the device after a dry run"
disk_is 1 ejected || fail "a dry run changed it: $(disk 1 state)"
ok vpool create other --size 128M "$T/other"
refused 'in use' vpool replace tank 1 "$T/other"
refused 'in use' vpool replace tank 1 "$T/other" --force
ok vpool export other
refused 'disk 0 of the pool "other"' vpool replace tank 1 "$T/other"
refused 'in use' vpool replace tank 1 "$T/here/d0" --force
nbdcopy --flush "$T/c" "$(uri tank/v "$T/n")" &
copy=$!
ok vpool replace tank 1 "$T/here/d2" --force --json
came
wait $copy || fail "the client failed"
whole
event 'disk\.replaced +tank: disk 1, which was .*/here/d9.*, is now .*/here/d2'
data_is "$T/c"

step "the device that was replaced lies around, and does not disturb"
daemon_kill
daemon_start "${conf[@]}"
until_ok 10 disk_is 1 online || fail "disk 1 is $(disk 1 state)"
same "$(disk 1 path)" "$T/here/d2" "disk 1"
whole
refused 'd9 is not disk|in service' vpool online tank 1 "$T/here/d9"
ok vpool export tank
ok vpool scan
grep -qE '2 of 2' <<<"$out" || fail "scan: $out"
ok vpool import tank
same "$(disk 1 path)" "$T/here/d2" "disk 1"
daemon_kill
only d2
[ "$(field '.pools[0].state' vpool status tank)" = degraded ] || ok vpool import tank
data_is "$T/c"
ok nbdcopy "$(uri tank/w "$T/w")" "$T/back"
cmp "$T/new" "$T/back" || fail "the data differ"

step "what has no copy elsewhere is not given up"
daemon_stop
only d2 d0
[ "$(field '.pools[0].state' vpool status tank)" = degraded ] || ok vpool import tank
ok vpool online tank 0 --json
came
whole
ok vpool volume create tank/s --raid single --size 16M
ok vpool attach tank/s --nbd "unix:$T/m"
head -c 16M /dev/urandom >"$T/single"
ok nbdcopy --flush "$T/single" "$(uri tank/s "$T/m")"
refused 'without redundancy' vpool offline tank 0
daemon_stop
ok vpool-check --data "$T/here/d0" "$T/here/d2"
