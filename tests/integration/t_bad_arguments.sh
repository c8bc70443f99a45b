#!/usr/bin/env bash
# What is wrong on a command line is refused with the right exit code and a sentence that helps.
. "$(dirname "$0")/../lib/daemon.sh"
need jq mke2fs

step "without a daemon"
refused 'start vpoold' vpool list
refused 'NO_DAEMON' vpool --json list
ok vpool version

step "vpool-bench: options that mean nothing together are refused"
usage 'no disk' vpool-bench --rw read
usage 'is not an option' vpool-bench --disk "$T/b" read
usage 'unrecognized' vpool-bench --disk "$T/b" --iodepth 4
usage '--queues has no meaning for a load' vpool-bench --disk "$T/b" --queues 2
usage '--profile has no meaning with --raw' vpool-bench --raw --disk "$T/b" --profile single
usage 'one disk, not 2' vpool-bench --raw --disk "$T/b" --disk "$T/c"
usage '--rw has no meaning with --ublk-volume' vpool-bench --ublk-volume --disk "$T/b" --rw read
usage '--ublk-volume has no meaning with --ublk-pass' vpool-bench --ublk-volume --ublk-pass "$T/b"
usage '--size has no meaning with --ublk-pass' vpool-bench --ublk-pass "$T/b" --size 1G
usage 'has to see the data' vpool-bench --ublk-pass "$T/b" --checksum --zero-copy
usage '--first-write goes with' vpool-bench --disk "$T/b" --first-write --rw read
usage '--first-write goes with' vpool-bench --disk "$T/b" --rw randread --first-write
usage 'more than --size' vpool-bench --disk "$T/b" --size 1M --bs 2M
[ ! -e "$T/b" ] || fail "a refused call made a disk"
for rw in '--rw randwrite' '--first-write' '--raw --rw read'; do
    # shellcheck disable=SC2086
    ok vpool-bench --disk "$T/b" --size 16M --depth 4 --requests 50 --json $rw
    same "$(jq .requests <<<"$out")" 50 "requests of $rw"
done

daemon_start
step "usage errors exit with 2"
usage 'usage' vpool
usage 'unknown command' vpool frobnicate
usage 'second word' vpool volume
usage 'unknown command' vpool volume frobnicate
usage 'POOL is missing' vpool create
usage 'DISK is missing' vpool create tank
usage 'NEWNAME is missing' vpool volume rename tank/v
usage '^[^.]*--size 0: a disk' vpool create tank --size 0 "$T/d"
usage "unexpected argument 'now'" vpool list now
usage "unexpected argument '3G': write --size 3G" vpool volume resize tank/v 3G
usage 'not UTF-8' vpool scan $'/x/\xff'
usage '"name":"USAGE"' vpool --json list now
usage '"name":"USAGE"' vpool list --frobnicate --json
usage '"name":"USAGE"' vpool frobnicate --json
usage 'at least one sector' vpool volume create tank/v --size 0
usage 'number below 2' vpool volume create tank/v --size 8E
refused 'nosuch does not exist' vpool scan /nosuch
full() { vpool help >/dev/full; }
refused 'could not be written: No space' full
usage 'size' vpool create tank --size 12Q "$T/d"
usage 'size' vpool volume create tank/v
usage 'not KEY=VALUE' vpool set tank full
usage 'name a pool' vpool import
usage 'name a pool' vpool import tank --all
usage 'say how' vpool attach tank/v
usage 'second word' vpool ublk
usage 'N is missing' vpool ublk remove
usage 'number of a ublk device' vpool ublk remove seven
usage 'number of a ublk device' vpool ublk remove -- -1
usage 'number of a ublk device' vpool ublk remove /dev/sda
usage 'number of a ublk device' vpool ublk remove 99999999999999999999
usage 'see `vpool' vpool list --frobnicate
usage 'usage' vpool --frobnicate list

step "a pool: names, profiles, options, disks"
refused 'mirror:N' vpool create tank --raid raid77 --size 64M "$T/d0"
refused 'not supported' vpool create tank --raid raid5:2+1 --size 256M "$T/d0" "$T/d1" "$T/d2"
refused 'unknown option' vpool create tank --size 256M -o colour=red "$T/d0"
refused 'power of two' vpool create tank --size 256M -o chunk=65K "$T/d0"
refused '.' vpool create 'bad/name' --size 256M "$T/d0"
refused '.' vpool create tank "$T/missing"
refused '.' vpool create tank --size 1M "$T/tiny"
refused '.' vpool create tank --raid mirror:3 --size 256M "$T/d0" "$T/d1"
refused '.' vpool create tank --size 256M "$T/d0" "$T/d0"
refused '.' vpool create tank /dev/null
left=$(ls "$T" | grep '^d[0-9]')
[ -z "$left" ] || fail "refused creations leave: $left"
rm -f "$T"/d* "$T/tiny"

step "a disk that holds something is refused without --force"
truncate -s 256M "$T/fs"
mke2fs -q -F "$T/fs" || fail mke2fs
refused '(ext|holds).*' vpool create tank "$T/fs"
ok vpool create tank --force "$T/fs"
refused '(exists|already)' vpool create tank --size 256M "$T/other"
refused '.' vpool create other "$T/fs"

step "volumes"
refused 'POOL/VOL' vpool volume create tank --size 1G
refused 'no pool' vpool volume create nopool/v --size 1G
refused 'name' vpool volume create tank/-v --size 1G
refused 'name' vpool volume create 'tank/a b' --size 1G
refused '.' vpool volume create tank/v --size 1P -o sector=4096 --raid mirror:9
refused '.' vpool volume create tank/v --size 1000
refused '.' vpool volume create tank/v --size 1G -o sector=1000
refused '.' vpool volume create tank/v --size 1G -o colour=red
refused '.' vpool volume create tank/v --size 2048T
refused 'no volume' vpool volume show tank/none
refused 'no volume' vpool volume delete tank/none
refused 'no volume' vpool volume resize tank/none --size 1G
ok vpool volume create tank/v --size 1G
refused 'another pool' vpool volume rename tank/v other/w
refused 'name' vpool volume rename tank/v ' '
same "$(field '[.volumes[].name]|join(",")' vpool volume list tank)" v "volumes"

step "attachments"
refused 'unix:PATH|tcp:' vpool attach tank/v --nbd frobnicate
refused 'loopback' vpool attach tank/v --nbd tcp:0.0.0.0:0
refused 'loopback' vpool attach tank/v --nbd tcp:127.example.net:0
refused 'no volume' vpool attach tank/none --nbd "unix:$T/n"
refused '.' vpool attach tank/v --nbd "unix:$T/no/such/dir/n"
refused '.' vpool attach tank/v --nbd "unix:$T/$(printf 'x%.0s' {1..150})"
ok vpool attach tank/v --nbd "unix:$T/n"
refused 'already' vpool attach tank/v --nbd "unix:$T/n"
ok vpool volume create tank/w --size 1G
refused 'another address|serves' vpool attach tank/w --nbd "unix:$T/n"
refused 'not attached' vpool detach tank/v --nbd unix:/nowhere
same "$(field '.attachments|length' vpool attachments)" 1 "attachments"

step "errors as JSON"
same "$(vpool --json volume show tank/none 2>&1 >/dev/null | jq -r .error.name)" NOT_FOUND "error name"
daemon_stop
