#!/usr/bin/env bash
# As many disks are lost as the mirror survives: the pool comes back when somebody says that they are
# lost, never by itself; and two halves that both went on are not joined again.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy
mkdir "$T/here" "$T/away"
cat >"$T/conf" <<END
disk-dirs = ("$T/here");
import-wait = 1;
END
state_of() { field ".pools[] | select(.name == \"$1\") | .state" vpool list; }
why() { field ".pools[] | select(.name == \"$1\") | .error // \"\"" vpool list; }
only() { # DISK…: these are here, the others are not
    for d in "$T"/here/*.img; do [ -e "$d" ] && mv "$d" "$T/away/"; done
    for d in "$@"; do mv "$T/away/$d.img" "$T/here/"; done
}
data_is() { # FILE
    until_ok 20 test -S "$T/n" || fail "no attachment"
    ok nbdcopy "$(uri tank/v "$T/n")" "$T/back"
    cmp "$1" "$T/back" || fail "the data differ"
}
head -c 16M /dev/urandom >"$T/data"

step "a mirror that is wider than metadata have copies is refused by name"
daemon_start -c "$T/conf"
refused 'mirror:6.*5 copies' vpool create wide --raid mirror:6 --size 64M "$T"/away/w{1..6}
[ -e "$T/away/w1" ] && fail "a disk was made all the same"

step "mirror:4 with one disk of four, after a kill"
ok vpool create tank --raid mirror:4 --size 128M "$T"/here/d{0..3}.img
ok vpool volume create tank/v --size 16M
refused 'mirror:7.*5 copies' vpool volume create tank/w --size 16M --raid mirror:7
refused 'mirror:7.*5 copies' vpool volume create tank/w --size 16M -o raid=mirror:7
ok vpool attach tank/v --nbd "unix:$T/n"
ok nbdcopy --flush "$T/data" "$(uri tank/v "$T/n")"
daemon_kill
only d2

step "a restart does not give the others up"
daemon_start -c "$T/conf"
until_ok 40 eval '[[ $(why tank) == *"--degraded"* ]]' || fail "it is $(state_of tank): $(why tank)"
same "$(state_of tank)" unavailable "with one disk of four"
refused 'only 1 of its 4 disks.*--degraded' vpool import tank -d "$T/here"
refused 'name the pool' vpool import --all --degraded
same "$(state_of tank)" unavailable "after the refusal"

step "an operator does, and the data are there"
ok vpool import tank --degraded
same "$(state_of tank)" degraded "with one disk of four"
data_is "$T/data"
grep -q 'given up by request' "$T/log" || fail "no event"
daemon_stop
daemon_start -c "$T/conf"
until_ok 20 eval '[ "$(state_of tank)" = degraded ]' || fail "after a restart it is $(state_of tank)"
data_is "$T/data"
daemon_stop

step "the others go on without it, and both halves together are refused"
only d0 d1 d3
daemon_start -c "$T/conf"
[ "$(state_of tank)" = degraded ] || ok vpool import tank -d "$T/here"
data_is "$T/data"
daemon_stop
only d0 d1 d2 d3
daemon_start -c "$T/conf"
until_ok 20 eval '[[ $(why tank) == *"one without the other"* ]]' || fail "$(state_of tank): $(why tank)"
refused 'one without the other' vpool import tank -d "$T/here"
refused 'one without the other' vpool import tank --degraded -d "$T/here"

step "the half that is given alone is taken"
daemon_stop
only d2
daemon_start -c "$T/conf"
[ "$(state_of tank)" = degraded ] || ok vpool import tank -d "$T/here"
data_is "$T/data"
daemon_stop

step "a volume that is wider than its pool's metadata: these get their copies, or it is refused"
only
daemon_start -c "$T/conf"
ok vpool create slim --raid mirror:2 --size 128M "$T"/here/s{0..2}.img
refused 'mirror:4 needs 4 disks in service, and there are 3' vpool volume create slim/w --size 16M --raid mirror:4
ok vpool export slim
ok vpool create wide --raid mirror:2 --size 128M "$T"/here/w{0..3}.img
ok vpool volume create wide/w --size 16M --raid mirror:4
same "$(field '.pools[0].warnings|length' vpool status wide)" 0 "warnings"
ok vpool attach wide/w --nbd "unix:$T/w"
ok nbdcopy --flush "$T/data" "$(uri wide/w "$T/w")"
daemon_kill
only w1
daemon_start -c "$T/conf"
until_ok 40 eval '[[ $(why wide) == *"--degraded"* ]]' || fail "it is $(state_of wide): $(why wide)"
ok vpool import wide --degraded
until_ok 20 test -S "$T/w" || fail "no attachment"
ok nbdcopy "$(uri wide/w "$T/w")" "$T/back"
cmp "$T/data" "$T/back" || fail "the data differ"
ok vpool export wide
ok vpool-check "$T/here/w1.img"
