#!/usr/bin/env bash
# Which disks and which pools a restart and an import take: by label, never by path alone.
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
