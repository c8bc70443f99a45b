#!/usr/bin/env bash
# Every command, as an operator uses it. threads: yes
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdinfo
daemon_start

step "an empty daemon says what to do first"
ok vpool list
grep -q 'vpool create' <<<"$out" || fail "no hint: $out"
ok vpool status
same "$(vpool list --json | jq -c .)" '{"pools":[]}' "list --json"

step "create makes missing files, and shows the pool"
ok vpool create tank --raid mirror:2 --size 1G -o comment=first "$T/d0" "$T/d1" "$T/d2"
same "$(field .pools[0].name vpool list)" tank "pool name"
same "$(field '.pools[0].disks|length' vpool status tank)" 3 "disks"
same "$(field .comment vpool get tank)" first "comment"
same "$(vpool get tank raid)" mirror:2 "raid"

step "the space figures add up"
same "$(field '.pools[0].space | .total_bytes == .data_bytes + .metadata_bytes + .free_bytes' vpool status)" true "space"

step "volumes: create, list, show"
ok vpool volume create tank/a --size 100M
ok vpool volume create tank/b --size 1.5G --raid single -o sector=4096 -o full-policy=enospc -o zero-detect=on
refused 'exists' vpool volume create tank/a --size 1M
same "$(field '[.volumes[].name]|join(",")' vpool volume list tank)" a,b "names"
same "$(field '[.volumes[].name]|join(",")' vpool volume list)" a,b "names of all pools"
same "$(field .size_bytes vpool volume show tank/a)" 104857600 "size"
same "$(field '.options|.sector,."full-policy",."zero-detect",.raid' vpool volume show tank/b | paste -sd,)" 4096,enospc,true,single "options"
ok vpool volume show tank/b
same "$(field .map vpool volume show tank/b)" null "the map of a volume that nobody has opened"
ok vpool volume list

step "properties: get, set"
ok vpool set tank/a full-policy=enospc
same "$(vpool get tank/a full-policy)" enospc "full-policy"
ok vpool set tank/a sync=always
same "$(vpool get tank/a sync)" always "sync"
ok vpool set tank comment='a longer text'
same "$(vpool get tank comment)" 'a longer text' "comment"
refused 'cannot be set' vpool set tank chunk=64K
refused '.' vpool set tank/a colour=red
refused 'no property' vpool get tank/a colour

step "resize: grow, shrink only with --force, --dry-run changes nothing"
ok vpool volume resize tank/a --size 200M
same "$(vpool get tank/a size)" 209715200 "grown"
refused '.' vpool volume resize tank/a --size 100M
ok vpool volume resize tank/a --size 50M --force --dry-run
same "$(vpool get tank/a size)" 209715200 "dry run"
ok vpool volume resize tank/a --size 50M --force
same "$(vpool get tank/a size)" 52428800 "shrunk"

step "attach prints the URI, which works"
ok vpool attach tank/a --nbd "unix:$T/n"
same "$out" "$(uri tank/a "$T/n")" "URI"
same "$(nbdinfo --size "$out")" 52428800 "size over NBD"
ok vpool attach tank/b --nbd tcp:127.0.0.1:0 --readonly
b=$out
grep -qE '^nbd://127.0.0.1:[0-9]+/tank/b$' <<<"$b" || fail "URI: $b"
ok nbdinfo --is read-only "$b"
same "$(field '.attachments|length' vpool attachments)" 2 "attachments"
ok vpool attachments

step "a relative socket path is the caller's"
(cd "$T" && vpool attach tank/a --nbd unix:rel) >/dev/null || fail "relative path"
[ -S "$T/rel" ] || fail "no socket at the relative path"

step "what is attached is not deleted, renamed or destroyed"
refused 'detach' vpool volume delete tank/a
refused 'detach' vpool volume rename tank/a c
refused 'detach' vpool destroy tank

step "detach: which one, or --all"
refused 'attachments.*--all' vpool detach tank/a
ok vpool detach tank/a --nbd "unix:$T/rel"
[ ! -e "$T/rel" ] || fail "the socket is still there"
ok vpool detach tank/a
ok vpool detach tank/b --all
refused 'not attached' vpool detach tank/a
same "$(field '.attachments|length' vpool attachments)" 0 "attachments"

step "rename and delete"
ok vpool volume rename tank/a renamed
refused 'no volume' vpool volume show tank/a
ok vpool volume delete tank/renamed --dry-run
ok vpool volume show tank/renamed
ok vpool volume delete tank/renamed
refused 'no volume' vpool volume show tank/renamed

step "events are numbered and tell the story"
ok vpool events
for k in pool.created volume.created volume.resized attachment.added attachment.removed volume.renamed volume.deleted; do
    grep -q " $k " <<<"$out" || fail "no event $k: $out"
done
last=$(field .last vpool events)
same "$(vpool events --json --since "$last" | jq '.events|length')" 0 "nothing new"
vpool --json events -f --since "$last" >"$T/followed" &
follower=$!
until_ok 5 test "$(field .control_connections vpool info --stats)" -ge 2
ok vpool volume create tank/c --size 1M
until_ok 5 grep -q volume.created "$T/followed" || fail "events -f did not see the volume: $(cat "$T/followed")"
kill $follower

step "iostat, info, log level, checkpoint, version, help"
ok vpool iostat
ok vpool iostat -i 1 -c 2 tank
ok vpool iostat --json
same "$(field ".pools|length" vpool iostat "$(field .pools[0].uuid vpool list)")" 1 "a pool by its uuid"
jq -e '.pools[0].disks|length == 3' <<<"$out" >/dev/null || fail "iostat: $out"
ok vpool iostat tank
grep -qE 'SINCE START +READS +WRITES +FLUSHES +READ +WRITTEN +READ P50 +P99 +WRITE P50 +P99' <<<"$out" || fail "iostat: $out"
ok vpool info
ok vpool info --stats
same "$(jq -r '.reactors[0]|keys|join(" ")' <<<"$out")" \
    "buffer_bytes_used completions coroutines coroutines_peak enters index spawned switches turns" "a reactor's figures"
ok vpool log-level debug
ok vpool log-level info
ok vpool checkpoint tank
ok vpool version
grep -qE 'vpool [0-9.]+, daemon [0-9.]+' <<<"$out" || fail "version: $out"
ok vpool help
for c in create list status destroy import export scan add remove online replace offline scrub get set 'volume create' 'volume list' 'volume show' 'volume resize' 'volume rename' 'volume delete' attach detach attachments doctor clear 'ublk list' 'ublk remove' jobs 'jobs pause' 'jobs resume' 'jobs limit' 'jobs wait' 'jobs cancel' events iostat info log-level checkpoint version help; do
    # shellcheck disable=SC2086
    ok vpool $c --help
done

step "commands of later releases say so"
for c in history snapshot clone rollback diff; do
    refused 'not supported by this release' vpool $c tank
done

resident() { awk '/^VmRSS/ { print $2 }' "/proc/$daemon_pid/status"; }
step "without the ublk driver there are no devices, and what to do is told"
if [ ! -e /dev/ublk-control ]; then
    what='modprobe ublk_drv|6\.5 or later' # load it, or the kernel is too old
    before=$(resident)
    refused "$what" vpool attach tank/b --ublk
    [ $(($(resident) - before)) -lt 32768 ] || fail "a refused attach took $(($(resident) - before)) KiB"
    refused "$what" vpool ublk remove 0
    same "$(field '.devices|length' vpool ublk list)" 0 "devices"
    ok vpool ublk list
    grep -qE "$what" <<<"$out" || fail "no hint: $out"
fi

step "export, scan, import, destroy"
ok vpool export tank
same "$(field '.pools|length' vpool list)" 0 "pools"
ok vpool scan "$T"
grep -q 'tank.*3 of 3.*can be imported' <<<"$out" || fail "scan: $out"
ok vpool import tank -d "$T"
same "$(field '[.volumes[].name]|join(",")' vpool volume list tank)" b,c "volumes"
ok vpool export tank
ok vpool import --all -d "$T/d0" -d "$T/d1" -d "$T/d2"
ok vpool destroy tank --dry-run
grep -q 'would destroy' <<<"$out" || fail "dry run: $out"
same "$(field '.pools|length' vpool list)" 1 "pools after a dry run"
ok vpool destroy tank
refused 'no pool' vpool status tank
ok vpool scan "$T"
grep -q 'no pools found' <<<"$out" || fail "scan after destroy: $out"

step "the daemon ends cleanly"
daemon_stop
