#!/usr/bin/env bash
# threads: yes
# Volumes are spread over several reactors and served there together; one reactor is enough too.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy
echo 'reactors = 3; buffer-memory = "16M"; commit-interval-ms = 200;' >"$T/conf"
daemon_start -c "$T/conf"
same "$(field .reactors vpool info)" 3 "reactors"
ok vpool create tank --raid mirror:2 --size 1G "$T/d0" "$T/d1"
head -c 16M /dev/urandom >"$T/data"
for i in 1 2 3 4 5 6; do
    ok vpool volume create "tank/v$i" --size 16M
    ok vpool attach "tank/v$i" --nbd "unix:$T/n$i"
done

step "volumes are spread evenly"
same "$(field '[.volumes[].reactor]|sort|join(",")' vpool volume list tank)" 0,0,1,1,2,2 "reactors of the volumes"

step "all of them write at the same time, while the tool looks and checkpoints are made"
copies=()
for i in 1 2 3 4 5 6; do
    nbdcopy --flush "$T/data" "$(uri "tank/v$i" "$T/n$i")" &
    copies+=($!)
done
for _ in 1 2 3 4 5; do
    ok vpool status
    ok vpool checkpoint tank
    ok vpool iostat
    ok vpool attachments
done
for c in "${copies[@]}"; do wait "$c" || fail "a copy failed"; done
for i in 1 2 3 4 5 6; do
    ok nbdcopy "$(uri "tank/v$i" "$T/n$i")" "$T/out"
    cmp "$T/data" "$T/out" || fail "v$i differs"
    same "$(field .valid_bytes vpool volume show "tank/v$i")" 16777216 "valid bytes of v$i"
done

step "every reactor worked"
same "$(field '[.reactors[]|select(.completions > 100)]|length' vpool info --stats)" 3 "busy reactors"

step "the same pool with one reactor"
daemon_stop
sed -i 's/reactors = 3/reactors = 1/' "$T/conf"
daemon_start -c "$T/conf"
for i in 1 6; do
    ok nbdcopy "$(uri "tank/v$i" "$T/n$i")" "$T/out"
    cmp "$T/data" "$T/out" || fail "v$i differs"
done
daemon_stop

# Nothing on a reactor may wait for a checkpoint while it has what the checkpoint needs there.
step "more requests than coroutines, all short of metadata memory: commands answer, and a stop ends"
echo 'reactors = 4; metadata-memory = "4M"; buffer-memory = "64M";' >"$T/conf"
daemon_start -c "$T/conf"
ok vpool create wide --size 16G -o chunk=16K "$T/d2"
ok vpool volume create wide/v --size 1T
ok vpool attach wide/v --nbd "unix:$T/wide"
"$bin/tests/bench/nbd_load" --unix "$T/wide" --export wide/v --rw randwrite --bs 16384 \
    --connections 62 --depth 128 --size $((1 << 40)) --runtime 600 >/dev/null 2>&1 &
load=$!
writes() { field .counters.writes timeout 30 vpool volume show wide/v; }
more_writes() { [ "$(writes)" -gt "$1" ]; }
for n in 2000 4000 6000; do
    until_ok 30 more_writes $n || fail "the writes stand still: $(writes)"
done
ok timeout 60 vpool checkpoint wide
daemon_stop
kill $load 2>/dev/null
wait $load 2>/dev/null || true
