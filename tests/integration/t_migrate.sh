#!/usr/bin/env bash
# A volume moves to another pool of the daemon: what an operator does, and what is refused.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy nbdsh script
mib=$((${VPOOL_SLOW:-0} ? 448 : 224)) # a sanitizer slows commands more than it slows a copy
daemon_start
ok vpool create tank --size 1G "$T/tank.disk"
ok vpool create silo --size 1G "$T/silo.disk"
ok vpool create mini --size 64M -o extent=4M "$T/mini.disk"
ok vpool create twin --raid mirror:2 --size 40M -o extent=4M "$T/twin.1" "$T/twin.2"
ok vpool volume create tank/v --size "$((mib + 32))M"
ok vpool attach tank/v --nbd "unix:$T/n"
told=$(uri tank/v "$T/n") # what clients have
head -c "${mib}M" /dev/urandom >"$T/data"
truncate -s "$((mib + 32))M" "$T/data"
ok nbdcopy --flush "$T/data" "$told"

# same_data: what clients read is what was written.
same_data() {
    ok nbdcopy "$told" "$T/out"
    cmp "$T/data" "$T/out" || fail "the data are not what was written"
    rm "$T/out"
}
# volumes: "tank/v=online …" of all pools.
volumes() { field '[.volumes[]|.pool + "/" + .name + "=" + .state]|join(" ")' vpool volume list; }
moves() { field "[.migrations[].$1]|join(\" \")" vpool migrate status; }
move() { vpool migrate "$1" --to "$2" --mode offline "${@:3}"; }
phase_is() { [ "$(field '.migrations[0].phase' vpool migrate status)" = "$1" ]; }
# copying FROM TO: a move that is at work, and slow.
copying() {
    ok vpool migrate "$1" --to "$2" --bandwidth 2M
    until_ok 10 phase_is copying || fail "it does not copy: $(vpool migrate status)"
}
# draining FROM TO: an offline move that is at work, for a short time.
draining() {
    ok move "$1" "$2"
    until_ok 10 phase_is draining || fail "it does not copy: $(vpool migrate status)"
}

step "what cannot be moved is refused, with the reason"
refused "mode 'postcopy' is not there yet" vpool migrate tank/v --to silo --mode postcopy
refused "'fast' is not a mode" vpool migrate tank/v --to silo --mode fast
refused "max_downtime_ms has no meaning in mode 'offline'" move tank/v silo --max-downtime 5
refused "mirror_wait_ms has no meaning in mode 'offline'" move tank/v silo --mirror-wait 5
refused "bandwidth_bytes has no meaning in mode 'offline'" move tank/v silo --bandwidth 5M
refused "'bandwidth_bytes' is 1024, which is not between" vpool migrate tank/v --to silo --bandwidth 1K
refused "'max_downtime_ms' is 0, which is not between 1 and 60000" vpool migrate tank/v --to silo --max-downtime 0
refused "'mirror_wait_ms' is 10001, which is not between 1 and 10000" vpool migrate tank/v --to silo --mirror-wait 10001
usage "'soon' is not a number" vpool migrate tank/v --to silo --max-downtime soon
usage '--to POOL' vpool migrate tank/v --mode offline
refused 'name another pool' move tank/v tank/w
refused "no pool 'none'" move tank/v none
refused 'no volume tank/none' move tank/none silo
refused "is not a volume's name" move tank/v silo/-
refused 'has room for .* are allocated' move tank/v mini
ok vpool volume create silo/taken --size 1M
refused 'silo/taken exists already' move tank/v silo/taken
ok vpool volume delete silo/taken
refused 'does not move' vpool migrate cancel tank/v
refused 'does not move' vpool migrate pause tank/v
refused 'does not move' vpool migrate forget tank/v --force
same "$(moves phase)" "" "moves"

step "a dry run says what would happen, and does nothing"
same "$(move tank/v silo/w --dry-run --json | jq -c '[.plan.from, .plan.to, .plan.mode, .plan.clients_wait, .plan.room_bytes > .plan.allocated_bytes, .id, .job]')" \
    '["tank/v","silo/w","offline",true,true,null,null]' "plan"
same "$(vpool migrate tank/v --to silo --dry-run --json | jq -c '[.plan.mode, .plan.clients_wait]')" '["live",false]' "default"
same "$(volumes)" "tank/v=online" "volumes"

step "an idle volume moves with its identity, its data and its exports, under the old name too"
uuid=$(field .uuid vpool volume show tank/v)
ok move tank/v silo/w --wait
grep -q "tank/v is silo/w now: ${mib}M were copied" <<<"$out" || fail "$out"
same "$(volumes)" "silo/w=online" "volumes"
same "$(field .uuid vpool volume show silo/w)" "$uuid" "uuid"
same "$(field '.attachments[]|.volume + " " + .state' vpool attachments)" "silo/w serving" "attachments"
same_data
ok nbdsh -u "$(uri silo/w "$T/n")" -c 'assert h.pread(4096, h.get_size() - 4096) == bytes(4096)'
same "$(field '.migrations[0]|[.from, .to, .phase, .error]|join(" ")' vpool migrate status)" "tank/v silo/w done " "status"
same "$(field '.migrations[0]|.ended >= .started and .frozen_ns > 0 and .pauses == 1 and .frozen_all_ns == .frozen_ns and .frozen_longest_ns == .frozen_ns and .copied_bytes == .total_bytes' vpool migrate status)" true "figures"
same "$(field '.jobs[]|select(.kind=="migrate")|.job + " " + .state' vpool jobs tank)" "$(moves job) done" "job"
vpool events | grep -q 'migration.started *tank/v: to silo/w, offline' || fail "$(vpool events)"
vpool events | grep -q "migration.done *tank/v: is silo/w now: ${mib}M were copied" || fail "$(vpool events)"
ok vpool status -x

step "a move that finds no room ends, its clients go on, and nothing is left there"
refused 'the move of silo/w to twin/w has ended: failed: writing twin/w at byte [0-9]+: no space' move silo/w twin --wait
same "$(volumes)" "silo/w=online" "volumes"
same_data
vpool events | grep -q 'migration.failed *silo/w: it stays, and has not become twin/w: writing' || fail "$(vpool events)"
until_ok 10 eval '[ "$(field ".pools[0].space.leased_bytes" vpool status twin)" = 0 ]' || fail "$(vpool status twin)"

step "while a volume moves, what would be in its way is refused with the command that helps"
copying silo/w tank/v
same "$(volumes)" "tank/v=target silo/w=moving" "volumes"
refused 'vpool migrate cancel silo/w' vpool export tank --force
refused 'vpool migrate cancel silo/w' vpool destroy silo
refused 'vpool migrate cancel silo/w' vpool volume resize silo/w --size 3G
refused 'vpool migrate cancel silo/w' vpool volume delete tank/v
refused 'moves already' move silo/w mini
refused 'moves to tank/v' vpool detach silo/w --force
job=$(field '.migrations[0].job' vpool migrate status)
phase_is copying || fail "the move was too quick for this test: $(vpool migrate status)"

step "a move that is cancelled leaves everything as it was, and another one can begin"
ok vpool migrate cancel silo/w
same "$(volumes)" "silo/w=online" "volumes"
same "$(moves phase)" "done failed cancelled" "phases"
same "$(field ".jobs[]|select(.job==\"$job\").state" vpool jobs silo)" cancelled "job"
vpool events | grep -q 'migration.cancelled *silo/w: it stays, and tank/v is deleted' || fail "$(vpool events)"
ended_early() { vpool jobs cancel "$job" 2>&1 | grep -q 'has ended: done'; }
for ((i = 0; i < 5; i++)); do # until the move is slower than these commands
    draining silo/w tank/v
    job=$(field '.migrations[0].job' vpool migrate status)
    paused=$(vpool jobs pause "$job" 2>&1) paused_move=$(vpool migrate pause silo/w 2>&1)
    ended_early || break
    ok vpool migrate tank/v --to silo/w --mode offline --wait
done
[ "$i" -lt 5 ] || fail "each move was too quick for this test"
[[ $paused = *'is neither paused nor limited'* ]] || fail "it was paused: $paused"
[[ $paused_move = *'clients of silo/w wait while it is copied to tank/v: it is not paused'* ]] || fail "it was paused: $paused_move"
until_ok 20 eval '[ "$(volumes)" = silo/w=online ]' || fail "$(vpool volume list)"

step "who waits for a move at a terminal sees how far it is, and otherwise only the end"
copying silo/w tank/v
job=$(field '.migrations[0].job' vpool migrate status)
seen=$(script -qec "vpool jobs wait -t 2 $job" /dev/null </dev/null)
[[ $seen =~ $'\r  running    ['[#.]{20}'] '\ *[0-9]+'% of '[0-9.]+M ]] || fail "$seen"
ok vpool migrate cancel silo/w
seen=$(script -qec "vpool migrate silo/w --to tank/v --bandwidth 2M --deadline 4 --wait" /dev/null </dev/null)
[[ $seen =~ $'\r  copying    ['[#.]{20}'] '\ *[0-9]+'% of '[0-9.]+M', '[0-9.]+M/s', '[0-9]+' s left, ' ]] || fail "$seen"
[[ $seen = *'has ended: failed: its deadline has passed'* ]] || fail "$seen"
plain=$(vpool migrate silo/w --to tank/v --bandwidth 2M --deadline 1 --wait 2>&1) && fail "$plain"
[[ $plain != *$'\r'* && $plain = *'its deadline has passed'* ]] || fail "$plain"

step "a move that does not end by its deadline says so early, and leaves everything as it was"
refused "'deadline_ms' is 0, which is not between" vpool migrate silo/w --to tank/v --deadline 0
same "$(vpool migrate estimate silo/w --to tank/v --bandwidth 2M --deadline 6 --json | jq -c .estimate.meets_deadline)" false "estimate"
ok vpool migrate silo/w --to tank/v --bandwidth 2M --deadline 6
until_ok 10 eval 'vpool migrate status | grep -q "it does not end by its deadline"' || fail "$(vpool migrate status --json)"
until_ok 10 eval '[ "$(volumes)" = silo/w=online ]' || fail "$(vpool volume list)"
same "$(field '.migrations[-1]|[.phase, .deadline - .started]|map(tostring)|join(" ")' vpool migrate status)" "failed 6" "status"
vpool events | grep -q 'migration.late *silo/w: as it goes now, its move to tank/v does not end by its deadline' || fail "$(vpool events)"
vpool events | grep -q 'migration.failed *silo/w: it stays, and has not become tank/v: its deadline has passed with .* left to copy' || fail "$(vpool events)"

step "a daemon that stops ends the move first, and one that is paused"
copying silo/w tank/v
ok vpool migrate pause silo/w
daemon_stop
daemon_start
same "$(volumes)" "silo/w=online" "volumes"

# killed_while_draining: then the pool of the target is not there at the start.
killed_while_draining() {
    draining silo/w tank/v
    daemon_kill
    mv "$T/tank.disk" "$T/away"
    daemon_start
}
settled() { [ "$(volumes)" = silo/w=online ] && vpool status -x; }

step "after a kill a volume whose other pool is missing is in doubt, and not served"
killed_while_draining
same "$(volumes)" "silo/w=in doubt" "volumes"
same "$(field '.in_doubt[]|[.volume, .side, .other]|join(" ")' vpool migrate status)" "silo/w left tank/v" "status"
same "$(field '.pools[]|select(.name=="silo").health|join(",")' vpool list)" "attachments,in doubt" "health"
out=$(vpool status -x) && fail "status -x exited with 0: $out"
grep -q "silo/w is in doubt and not served; it may have moved to tank/v: pool 'tank' is not open" <<<"$out" || fail "status -x: $out"
same "$(field '[.findings[]|select(.text|test("in doubt")).command][0]' vpool doctor)" "vpool migrate forget silo/w --dry-run" "doctor"
until_ok 10 eval "vpool events | grep -q 'migration.in-doubt *silo/w: may have moved to tank/v'" || fail "$(vpool events)"
refused 'may have moved to tank/v' vpool attach silo/w --nbd "unix:$T/other"
refused 'vpool migrate forget silo/w' vpool volume delete silo/w

step "when the pool comes back, it is settled, and served at once"
mv "$T/away" "$T/tank.disk"
until_ok 20 eval '[ "$(volumes)" = silo/w=online ]' || fail "not settled: $(vpool migrate status; vpool list)"
until_ok 10 settled || fail "not well: $(vpool status -x)"
vpool events | grep -q 'migration.settled *silo/w: stays here' || fail "$(vpool events)"
same_data

step "a pool that is lost is given up by force only; what comes back is not served beside it"
killed_while_draining
refused 'may have moved to tank/v' vpool attach silo/w --nbd "unix:$T/other"
refused 'becomes the volume again.*--force' vpool migrate forget silo/w
same "$(vpool migrate forget silo/w --dry-run --json | jq -r '.side + " " + .becomes')" "left owner" "dry run"
same "$(volumes)" "silo/w=in doubt" "volumes"
ok vpool migrate forget silo/w --force
same "$(volumes)" "silo/w=online" "volumes"
mv "$T/away" "$T/tank.disk"
until_ok 20 eval 'vpool events | grep -q "pool.imported *tank"' || fail "$(vpool list)"
same "$(volumes)" "silo/w=online" "volumes"
vpool events | grep -q 'migration.settled *tank/v: is deleted' || fail "$(vpool events)"
ok move silo/w tank/v --wait
same_data
daemon_stop
