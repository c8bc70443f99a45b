#!/usr/bin/env bash
# long: yes
# A volume moves while a client writes as fast as it can and verifies what it reads: no error, no
# wrong block, and what nobody writes stays, holes too.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy nbdinfo qemu-img fio
fio --enghelp 2>/dev/null | grep -qw nbd || skip "fio has no NBD engine here"
times=$((${VPOOL_SLOW:-0} ? 1 : 5))
bulk=$((${VPOOL_SLOW:-0} ? 224 : 128)) # MiB that nobody writes, from 32 MiB on; then a hole of 64 MiB
daemon_start
ok vpool create tank --size 1G "$T/tank.disk"
ok vpool create silo --size 1G "$T/silo.disk"
ok vpool create twin --raid mirror:2 --size 40M -o extent=4M "$T/twin.1" "$T/twin.2"
ok vpool volume create tank/v --size "$((32 + bulk + 64))M"
ok vpool attach tank/v --nbd "unix:$T/n"
told=$(uri tank/v "$T/n")
head -c "${bulk}M" /dev/urandom >"$T/bulk"
truncate -s 32M "$T/data"
cat "$T/bulk" >>"$T/data"
truncate -s "$((32 + bulk + 64))M" "$T/data"
ok nbdcopy --flush "$T/data" "$told"

volumes() { field '[.volumes[]|.pool + "/" + .name + "=" + .state]|join(" ")' vpool volume list; }
last() { field ".migrations[-1].$1" vpool migrate status; }
now() { field ".migrations[0].$1" vpool migrate status; }
phase_is() { [ "$(now phase)" = "$1" ]; }
load_start() { # two jobs in the first 32 MiB, which read back and verify what they have written
    (cd "$T" && exec fio --ioengine=nbd --uri="$told" --rw=randwrite --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
        --time_based --runtime=600 --output-format=json --output="$T/fio" \
        --name=small --bs=4k --iodepth=16 --size=16M --verify_backlog=512 \
        --name=large --bs=64k --iodepth=2 --offset=16M --size=16M --verify_backlog=32) >"$T/fio.log" 2>&1 &
    load=$!
    until_ok 20 loaded || fail "no load: $(cat "$T/fio.log" "$T/fio")"
}
loaded() { [ "$(field '[.attachments[].requests]|add' vpool attachments)" -gt $((${1:-0} + 500)) ]; }
load_end() { # it went on until now
    local before
    before=$(field '[.attachments[].requests]|add' vpool attachments)
    until_ok 20 loaded "$before" || fail "the load has ended: $(cat "$T/fio.log" "$T/fio")"
    kill -INT "$load"
    wait "$load"
    sed -i '/^fio: /d' "$T/fio" # it says that it was told to end
    same "$(jq -c '[.jobs[].error] + [.jobs[].write.total_ios > 100] + [.jobs[].read.total_ios > 100]' "$T/fio")" \
        "[0,0,true,true,true,true]" "fio ($(cat "$T/fio.log"))"
}
same_bulk() { # what nobody wrote
    ok nbdcopy "$told" "$T/out"
    cmp <(tail -c "+$((32 * 1024 * 1024 + 1))" "$T/data") <(tail -c "+$((32 * 1024 * 1024 + 1))" "$T/out") ||
        fail "what nobody wrote has changed"
    rm "$T/out"
}
# there_and_back [options]
there_and_back() {
    for ((i = 0; i < times; i++)); do
        ok vpool migrate tank/v --to silo --wait "$@"
        ok vpool migrate silo/v --to tank --wait "$@"
    done
}

step "under a load that verifies it moves there and back, without --mode: live"
load_start
there_and_back
same "$(field '[.migrations[]|select(.phase == "done" and .mode == "live" and .frozen_ns > 0 and .copied_bytes >= .again_bytes)]|length' vpool migrate status)" $((2 * times)) "moves"
same "$(field '[.migrations[]|.again_bytes > 0 and .rounds > 0 and .rate_bytes > 0]|any' vpool migrate status)" true "copied again"
echo "clients waited, ms: $(field '[.migrations[].frozen_ns / 1000000 | floor | tostring]|join(" ")' vpool migrate status)"

step "and with --mode mirror: what the client writes goes to both pools"
there_and_back --mode mirror
same "$(field '[.migrations[]|select(.mode == "mirror").phase == "done"]|all' vpool migrate status)" true "moves"
same "$(field '[.migrations[].mirrored_bytes]|add > 0' vpool migrate status)" true "mirrored"
vpool events | grep -qE 'migration.done *silo/v: is tank/v now: .* were copied, .* were zeros; of both, .* again; .* were mirrored; clients waited [0-9]+ ms' || fail "$(vpool events)"

step "what a move would take is told before, and that it never ends by copying alone"
estimate() { vpool migrate estimate tank/v --to silo --json "$@" | jq -c ".estimate|$e"; }
e='[.bytes > 0, .rate_bytes > 0, .written_bytes > 0, .pause_ns > 0]'
same "$(estimate)" "[true,true,true,true]" "estimate"
e='[.converges, .seconds, .rate_bytes]'
same "$(estimate --bandwidth 1M)" "[false,null,1048576]" "estimate"
vpool migrate tank/v --to silo --bandwidth 1M --dry-run | grep -q 'never at this rate' || fail "dry run"
same "$(volumes)" "tank/v=online" "volumes"

step "what the moves took and cost is reported"
report() { field "[.moves[]|select($1)]|length" vpool migrate report; }
same "$(report '.phase == "done" and .requests > 0 and .during_ns > 0 and .longest_ns >= .during_ns and .predicted_ns > 0')" $((4 * times)) "reports"
# What requests took before is not known where none came in the 20 ms in which a move looks for them.
[ "$(report '.before_ns > 0')" -gt 0 ] || fail "$(vpool migrate report --json)"
until_ok 20 eval '[ "$(report "has(\"after_ns\")")" = $((4 * times)) ]' || fail "$(vpool migrate report --json)"
vpool migrate report tank/v | grep -qE 'requests +99% within [0-9.]+ ms before, [0-9.]+ ms during' || fail "$(vpool migrate report)"

step "and at full speed"
there_and_back --full-speed
refused 'impact_percent and full_speed exclude each other' vpool migrate tank/v --to silo --impact 150 --full-speed
refused "'impact_percent' is 100, which is not between" vpool migrate tank/v --to silo --impact 100

step "what was copied is compared with what is here, also while the client writes"
there=$(vpool migrate tank/v --to silo --mode mirror --verify --wait)
[[ $there =~ "were mirrored; "[0-9.]+[KMG]" were compared, " ]] || fail "$there"
ok vpool migrate silo/v --to tank --verify --wait
same "$(last 'verify|[.compared_bytes >= '"$((bulk << 20))"', .passes > 0, .not_compared_bytes < .compared_bytes]|tostring')" "[true,true,true]" "compared"
vpool migrate report | tail -5 | grep -qE 'compared +[0-9.]+[KMG] in [0-9]+ passes, .* of the last changes were not compared' || fail "$(vpool migrate report)"
vpool events | grep -qE 'migration.done *silo/v: .*; [0-9.]+[KMG] were compared, ' || fail "$(vpool events)"
refused "verify has no meaning in mode 'offline'" vpool migrate tank/v --to silo --mode offline --verify

step "a new pool that has no room ends the move, and the load goes on"
refused 'the move of tank/v to twin/v has ended: failed: writing twin/v at byte [0-9]+: no space' vpool migrate tank/v --to twin --wait
same "$(volumes)" "tank/v=online" "volumes"

step "while it is copied its state is shown, and what would be in the way is refused"
ok vpool migrate tank/v --to silo --max-downtime 1 --mirror-wait 100 --bandwidth 20M
until_ok 10 phase_is copying || fail "it does not copy: $(vpool migrate status)"
refused 'vpool migrate cancel tank/v' vpool volume resize tank/v --size 3G
same "$(now 'mode, .migrations[0].ended, .migrations[0].frozen_ns' | xargs)" "live null null" "status"

step "a move is limited, paused, and resumed"
job=$(now job)
same "$(field ".jobs[]|select(.job==\"$job\").limit" vpool jobs tank)" $((20 * 1024 * 1024)) "limit"
ok vpool jobs limit "$job" 10M
ok vpool jobs pause "$job"
same "$(field ".jobs[]|select(.job==\"$job\").state" vpool jobs tank)" paused "job"
same "$(now paused)" true "paused"
refused 'no volume|does not move' vpool migrate pause tank/none
ok vpool migrate resume tank/v
same "$(now paused)" false "resumed"
ok vpool migrate pause silo/v
[[ $out = "paused: tank/v stays where it is, and its move to silo/v goes on after"* ]] || fail "$out"
vpool migrate status | grep -q 'copying, paused' || fail "$(vpool migrate status)"
same "$(field ".jobs[]|select(.job==\"$job\").state" vpool jobs tank)" paused "job"
until_ok 10 eval 'vpool events | grep -q "migration.paused *tank/v: its move to silo/v is paused"' || fail "$(vpool events)"
copied=$(now copied_bytes) && requests=$(field '[.attachments[].requests]|add' vpool attachments)
until_ok 20 loaded "$requests" || fail "clients wait in a pause"
same "$(now "copied_bytes, .migrations[0].dirty_bytes > 0" | xargs)" "$copied true" "copied in a pause"
ok vpool migrate resume tank/v
phase_is copying || fail "it was too quick for this test: $(vpool migrate status)"
until_ok 10 eval '[ "$(now "converges, (.migrations[0].seconds_left >= 0)" | xargs)" = "true true" ]' || fail "$(vpool migrate status --json)"

step "a move that is cancelled in the middle, and in a pause, leaves the volume where it was"
ok vpool migrate pause tank/v
ok vpool migrate cancel tank/v
same "$(volumes)" "tank/v=online" "volumes"
same "$(last phase)" cancelled "phase"
load_end
same_bulk

step "thin stays thin, and the data are the same to the byte"
ok nbdcopy "$told" "$T/before"
used=$(field .allocated_bytes vpool volume show tank/v)
ok vpool migrate tank/v --to silo --wait
same "$(last again_bytes)" 0 "copied again of an idle volume"
same "$(field .allocated_bytes vpool volume show silo/v)" "$used" "allocated"
same "$(nbdinfo --map --json "$told" | jq -c '.[-1]|[.length >= 67108864, .description]')" '[true,"hole,zero"]' "the hole"
ok qemu-img compare -f raw -F raw "$T/before" "nbd+unix:///?socket=$T/n"

step "a kill while it is copied leaves no doubt: it is served, also without the new pool"
ok vpool migrate silo/v --to tank --bandwidth 20M
until_ok 10 phase_is copying || fail "it does not copy: $(vpool migrate status)"
daemon_kill
mv "$T/tank.disk" "$T/away"
daemon_start
same "$(volumes)" "silo/v=online" "volumes"
[ "$(report true)" -ge $((4 * times)) ] || fail "reports are lost: $(vpool migrate report)"
ok qemu-img compare -f raw -F raw "$T/before" "nbd+unix:///?socket=$T/n"
mv "$T/away" "$T/tank.disk"
until_ok 20 eval 'vpool events | grep -q "migration.settled *tank/v: is deleted"' || fail "$(vpool events)"
ok vpool migrate silo/v --to tank --wait
same_bulk
daemon_stop
