#!/usr/bin/env bash
# What happened is known after a restart as well; the log has times, and goes on in a new file after SIGHUP.
. "$(dirname "$0")/../lib/daemon.sh"
need jq
echo "log-file = \"$T/own.log\";" >"$T/conf"
daemon_start -c "$T/conf"

step "several disks without --raid: single, with a warning"
ok vpool create tank --size 128M "$T/d0" "$T/d1"
grep -q 'single.*--raid mirror' <<<"$out" || fail "no warning: $out"
same "$(vpool get tank raid)" single "raid"
ok vpool create other --size 128M --raid mirror "$T/d2" "$T/d3"
grep -q 'no copy' <<<"$out" && fail "a warning for a mirror: $out"

step "a disk that is too large for the others: told at create and at import"
truncate -s 64M "$T/small"
truncate -s 512M "$T/large"
ok vpool create odd --raid mirror "$T/small" "$T/large"
grep -q 'of 57.M cannot hold mirror:2 volumes.*about the same size' <<<"$out" || fail "no warning: $out"
ok vpool export odd
ok vpool import odd -d "$T/small" -d "$T/large"
grep -q 'cannot hold mirror:2 volumes' <<<"$out" || fail "no warning: $out"
ok vpool destroy odd

step "events come back with the pool that they are about, marked, in order"
ok vpool volume create tank/a --size 1M
ok vpool volume delete tank/a
epoch=$(field .epoch vpool events)
daemon_stop
sleep 1
daemon_start -c "$T/conf"
story='[.events[]|select(.subject|startswith("tank"))|select(.earlier).kind]|join(" ")'
same "$(field "$story" vpool events)" "pool.created volume.created volume.deleted" "what is told of tank"
[ "$(field .epoch vpool events)" != "$epoch" ] || fail "the numbers of two daemons have one epoch"
ok vpool volume create tank/b --size 1M
daemon_stop
daemon_start -c "$T/conf"
same "$(field "[.events[]|select(.kind==\"volume.created\")]|length" vpool events)" 2 "events after a second restart"

step "doctor: kept memory of a pool that is not known here is told, and forgotten; also of very many"
lost=00000000-1111-4222-8333-$(printf '%012d' $$)
for i in {1000..1080}; do head -c 4096 /dev/zero >"/dev/shm/vpool-0000$i${lost#????????}-7"; done
head -c 65536 /dev/zero >"/dev/shm/vpool-$lost-7"
rc=0 told=0
said=$(vpool doctor 2>&1) || told=$?
vpool doctor --forget "$lost" >"$T/forgot" 2>&1 || rc=$?
[ ! -e "/dev/shm/vpool-$lost-7" ] || rc=still-there
rm -f "/dev/shm/vpool-$lost-7" "/dev/shm/vpool-0000"????"${lost#????????}-7"
same "$(grep -c "^[^ ]*${lost#????????}: 4K of memory" <<<"$said")" 81 "other pools that are told"
same "$told" 3 "exit code with a finding"
grep -q "$lost: 64K of memory" <<<"$said" || fail "doctor: $said"
grep -q "vpool doctor --forget $lost" <<<"$said" || fail "no command: $said"
same "$rc" 0 "forgetting it: $(cat "$T/forgot")"
refused 'nothing is kept' vpool doctor --forget "$lost"

step "what can still be written is told at the default redundancy"
same "$(field '.pools[]|select(.name=="other").space|.writable_bytes * 2 <= .free_bytes and .writable_bytes > 0' vpool list)" true "writable"

step "an idle daemon is idle"
turns() { field '.reactors[0].turns' vpool info --stats; }
before=$(turns)
sleep 2
[ $(($(turns) - before)) -lt 1000 ] || fail "$(($(turns) - before)) turns of the reactor in two seconds"

step "lines of the log have the time"
grep -qE '^20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]{3} info: daemon.started' "$T/own.log" || fail "no time: $(head -1 "$T/own.log")"

step "SIGHUP: the log goes on in a new file"
mv "$T/own.log" "$T/old.log"
kill -HUP "$daemon_pid"
until_ok 5 test -e "$T/own.log" || fail "no new file"
ok vpool volume create tank/c --size 1M
until_ok 5 grep -q 'volume.created: tank/c' "$T/own.log" || fail "the new file lacks a line"

step "a disk's strange name brings no raw bytes into events and log"
strange="$T/dir/"$'d\e[31m\x01\xc2\x9b\xff'
mkdir "$T/dir"
ok vpool create odd --size 64M "$T/dir/plain"
ok vpool export odd
mv "$T/dir/plain" "$strange"
ok vpool import odd -d "$T/dir"
rm "$strange"
ok_or_findings() { vpool doctor >"$T/findings" 2>&1 || [ $? = 3 ]; }
ok_or_findings || fail "doctor: $(cat "$T/findings")"
until_ok 10 eval 'vpool events >"$T/events" && grep -q "disk.changed.*removed" "$T/events"' || fail "no event: $(cat "$T/events")"
ok vpool destroy odd
for told in "$T/events" "$T/findings" "$T/own.log"; do
    ! LC_ALL=C grep -naP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$told" || fail "raw bytes in $told"
done
daemon_stop

step "lines for journald have their priorities and no time; other lines the time"
: >"$T/log"
JOURNAL_STREAM=$(stat -c %d:%i "$T/log") daemon_start
daemon_stop
grep -qE '^<6>daemon.started' "$T/log" || fail "no priority: $(cat "$T/log")"
mv "$T/d0" "$T/away"
JOURNAL_STREAM=$(stat -c %d:%i "$T/log") daemon_start
until_ok 10 grep -qE '^<3>.*tank' "$T/log" || fail "no error's priority: $(cat "$T/log")"
daemon_stop
mv "$T/away" "$T/d0"
! grep -vE '^<[3-6]>' "$T/log" || fail "lines without a priority"
: >"$T/log"
JOURNAL_STREAM=1:1 daemon_start
daemon_stop
grep -qE '^20[0-9-]{8} [0-9:.]{12} info: daemon.started' "$T/log" || fail "no time: $(cat "$T/log")"
