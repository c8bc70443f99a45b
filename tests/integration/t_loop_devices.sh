#!/usr/bin/env bash
# Pools on block devices (loop devices over files), of different sizes; mounted and foreign ones are
# refused.
. "$(dirname "$0")/../lib/daemon.sh"
need jq losetup nbdcopy mke2fs
[ "$(id -u)" = 0 ] || skip "loop devices need root"
loops=()
release() { for l in "${loops[@]}"; do losetup -d "$l" 2>/dev/null; done; }
trap 'rc=$?; if [ -n "$daemon_pid" ]; then kill -9 "$daemon_pid"; wait "$daemon_pid" 2>/dev/null; fi; release; (exit $rc); cleanup' EXIT
i=0
for size in 512M 768M 1G; do
    truncate -s $size "$T/back$i"
    l=$(losetup -f --show --direct-io=on "$T/back$i" 2>/dev/null || losetup -f --show "$T/back$i" 2>/dev/null) || skip "no loop devices here"
    loops+=("$l")
    i=$((i + 1))
done
daemon_start

step "a device that holds a file system is refused without --force"
mke2fs -q -F "${loops[0]}" || fail mke2fs
refused 'ext' vpool create tank --raid mirror:2 "${loops[@]}"
ok vpool create tank --raid mirror:2 --force "${loops[@]}"

step "data go through, restarts included"
ok vpool volume create tank/v --size 256M
ok vpool attach tank/v --nbd "unix:$T/n"
head -c 64M /dev/urandom >"$T/data"
truncate -s 256M "$T/data"
ok nbdcopy --flush "$T/data" "$(uri tank/v "$T/n")"
daemon_kill
daemon_start
ok nbdcopy "$(uri tank/v "$T/n")" "$T/out"
cmp "$T/data" "$T/out" || fail "the data differ"

step "a device in use is refused to others"
refused '.' vpool create other --force "${loops[0]}"
mkfs_out=$(mke2fs -q "${loops[1]}" 2>&1 </dev/null) && fail "mke2fs took a disk of the pool: $mkfs_out"

step "scan and import by directory of devices"
ok vpool detach tank/v
ok vpool export tank
mkdir "$T/dev"
for l in "${loops[@]}"; do ln -s "$l" "$T/dev/$(basename "$l")"; done
ok vpool import tank -d "$T/dev"
same "$(field '.pools[0].disks|map(select(.state=="online"))|length' vpool status tank)" 3 "disks"
ok vpool destroy tank
daemon_stop
