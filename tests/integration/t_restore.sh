#!/usr/bin/env bash
# Which disks and which pools a restart and an import take: by label, never by path alone.
# long: yes
. "$(dirname "$0")/../lib/daemon.sh"
need jq python3
mkdir "$T/d"
online() { field '[.pools[0].disks[] | select(.state == "online")] | length' vpool status "$1"; }
state_of() { field ".pools[] | select(.name == \"$1\") | .state" vpool list; }
uuid_of() { field ".pools[] | select(.name == \"$1\") | .uuid" vpool list; }

step "a disk whose path is not UTF-8 is imported, and found again by a restart"
daemon_start
ok vpool create one --raid mirror:2 --size 64M "$T/d/a.img" "$T/d/b.img"
ok vpool export one
odd=$T/d/$'a\xff.img'
mv "$T/d/a.img" "$odd"
ok vpool import one -d "$T/d"
same "$(online one)" 2 "disks online after the import"
daemon_stop
daemon_start
same "$(online one)" 2 "disks online after the restart"
ok vpool export one
mv "$odd" "$T/d/a.img"

step "pools whose disks changed places are each found by their uuid"
ok vpool create two --size 64M "$T/two"
ok vpool create three --size 64M "$T/three"
two=$(uuid_of two) three=$(uuid_of three)
daemon_stop
mv "$T/two" "$T/x"
mv "$T/three" "$T/two"
mv "$T/x" "$T/three"
cat >"$T/conf" <<<"disk-dirs = (\"$T\");"
daemon_start -c "$T/conf"
same "$(field '.pools | length' vpool list)" 2 "pools"
same "$(state_of two) $(uuid_of two)" "online $two" "two"
same "$(state_of three) $(uuid_of three)" "online $three" "three"

step "an exported pool at a path that is remembered is not imported"
ok vpool export three
daemon_stop
mv "$T/three" "$T/other" # two's disk goes away, and three's takes its place
mv "$T/two" "$T/three"
mkdir "$T/away"
mv "$T/other" "$T/away/two"
daemon_start
same "$(field '.pools | length' vpool list)" 1 "pools"
same "$(state_of two)" unavailable "two without its disk"

step "a pool of which nothing was there is imported when its disk comes, without a restart"
mv "$T/three" "$T/free"
mv "$T/away/two" "$T/three"
until_ok 40 eval '[ "$(state_of two)" = online ]' || fail "two is $(state_of two)"

step "a disk that somebody else holds at the start is tried again until it is free"
daemon_stop
python3 -c 'import fcntl, sys, time
f = open(sys.argv[1], "r+b")
fcntl.lockf(f, fcntl.LOCK_EX)
open(sys.argv[2], "w")
time.sleep(60)' "$T/three" "$T/held" &
holder=$!
until_ok 10 test -e "$T/held" || fail "the disk is not held"
daemon_start
same "$(state_of two)" unavailable "two while its disk is held"
kill $holder
wait $holder 2>/dev/null
until_ok 40 eval '[ "$(state_of two)" = online ]' || fail "two is $(state_of two)"

step "an open pool is found before an unavailable one of the same name"
daemon_stop
mv "$T/three" "$T/away/two"
daemon_start --state-dir "$T/state2"
ok vpool create two --size 64M "$T/new"
ok vpool export two
daemon_stop
daemon_start
same "$(state_of two)" unavailable "two without its disk"
ok vpool import two -d "$T/new"
ok vpool volume create two/v --size 1M
same "$(field '.pools | length' vpool list)" 2 "pools"

step "and that one does not come back by itself beside it"
mv "$T/away/two" "$T/three"
until_ok 40 eval 'vpool list --json | grep -q "open already"' || fail "$(vpool list --json)"
ok vpool volume show two/v
ok vpool export two
ok vpool import two -d "$T/three"
refused 'no volume' vpool volume show two/v
daemon_stop

step "the control socket of another daemon stays when this one ends"
daemon_start
first=$daemon_pid
mv "$VPOOL_SOCKET" "$T/moved"
vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state2" --foreground >>"$T/log" 2>&1 &
second=$!
until_ok 10 vpool list || fail "the second daemon does not answer"
kill "$first"
wait "$first"
daemon_pid=$second
ok vpool list
daemon_stop

step "a disk that comes late is waited for, and meanwhile other pools are served"
mkdir "$T/w" "$T/w2" "$T/late"
cat >"$T/conf" <<<"disk-dirs = (\"$T/w2\"); import-wait = 60;"
daemon_start --state-dir "$T/state3" -c "$T/conf"
ok vpool create other --size 64M "$T/w/o"
ok vpool create slow --raid mirror:2 --size 64M "$T/w/a" "$T/w/b"
daemon_stop
mv "$T/w/b" "$T/late/b"
daemon_start --state-dir "$T/state3" -c "$T/conf"
same "$(state_of slow) $(state_of other)" "unavailable online" "the pools"
rc=0
said=$(vpool status slow 2>&1) || rc=$?
grep -q "1 of its 2 disks missing (no longer at $T/w/b): waiting for" <<<"$said" || fail "status: $said"
mv "$T/late/b" "$T/w/b"
until_ok 20 eval '[ "$(state_of slow)" = online ]' || fail "slow is $(state_of slow)"
same "$(online slow)" 2 "disks online"

step "disks that were moved within disk-dirs are not waited for"
daemon_stop
mv "$T/w/b" "$T/w2/x"
daemon_start --state-dir "$T/state3" -c "$T/conf"
same "$(state_of slow) $(online slow)" "online 2" "slow"

step "neither a stop nor an import by hand waits"
daemon_stop
mv "$T/w2/x" "$T/late/b"
daemon_start --state-dir "$T/state3" -c "$T/conf"
same "$(state_of slow)" unavailable "slow without a disk"
daemon_stop
daemon_start --state-dir "$T/state3" -c "$T/conf"
ok vpool import slow -d "$T/w"
same "$(state_of slow) $(online slow)" "degraded 1" "slow"

step "a disk that was missing last time is not waited for"
daemon_stop
daemon_start --state-dir "$T/state3" -c "$T/conf"
same "$(state_of slow)" degraded "slow"

step "a foreign disk at a path that is remembered: the pool goes on without it after the wait"
ok vpool create third --raid mirror:2 --size 64M "$T/w/c" "$T/w/d"
daemon_stop
mv "$T/w/d" "$T/late/d"
truncate -s 64M "$T/w/d"
cat >"$T/conf" <<<"disk-dirs = (\"$T/w2\"); import-wait = 1;"
daemon_start --state-dir "$T/state3" -c "$T/conf"
until_ok 20 eval '[ "$(state_of third)" = degraded ]' || fail "third is $(state_of third)"
same "$(online third)" 1 "disks online"

step "two copies of a disk are refused while another disk is waited for, and after it"
daemon_stop
rm "$T/w/d"
cp "$T/w/c" "$T/w2/c"
mv "$T/w/c" "$T/w2/e"
daemon_start --state-dir "$T/state3" -c "$T/conf"
until_ok 20 eval 'vpool list --json | grep -q "copies of one disk"' || fail "$(vpool list --json)"
daemon_stop
