# Devices whose daemon never comes back; who uses a device.
. "$(dirname "$0")/guest.sh"
need sfdisk
pool
ok vpool volume create tank/a --size 200M
ok vpool volume create tank/b --size 100M

step "a list says who uses a device: mounts, partitions, processes"
attach tank/a --ublk --number 7
echo ',100M,L' | sfdisk -q /dev/ublkb7 >/dev/null || fail sfdisk
until_ok 5 test -b /dev/ublkb7p1 || fail "no partition"
ok mkfs.ext4 -q /dev/ublkb7p1
ok mount /dev/ublkb7p1 /mnt/v
sleep 1000 </dev/ublkb7 &
reader=$!
used_by=$(vpool --json attachments | jq -r '.attachments[0].used_by')
[ "$used_by" = "mounted at /mnt/v; open in sleep (pid $reader)" ] || fail "used by: $used_by"
[ "$(vpool --json attachments | jq -r '.attachments[0].users[0].device')" = ublkb7p1 ] || fail "which partition"
vpool attachments | grep -q 'mounted at /mnt/v' || fail "$(vpool attachments)"

step "detach names them"
refused 'mounted at /mnt/v; open in sleep' vpool detach tank/a
umount /mnt/v
refused "open in sleep .pid $reader" vpool detach tank/a
kill $reader
wait $reader 2>/dev/null

step "swap is a use, too"
attach tank/b --ublk --number 8
ok mkswap /dev/ublkb8
ok swapon /dev/ublkb8
refused 'swap on ublkb8' vpool detach tank/b
ok swapoff /dev/ublkb8

step "a device that is served is not removed, nor one that is not there"
refused 'vpool detach tank/a' vpool ublk remove 7 --force
refused 'no ublk device' vpool ublk remove 99
ok vpool ublk list
grep -qE '/dev/ublkb7 +here +tank/a +serving' <<<"$out" || fail "$out"

step "devices that do not answer are listed, each with its reason"
mv /dev/ublk-control /dev/hidden # so that the kernel cannot be asked
ok vpool ublk list
grep -qE '/dev/ublkb7 +here +tank/a +unknown' <<<"$out" && grep -q '/dev/ublkb8 does not answer: there is no' <<<"$out" || fail "$out"
[ "$(vpool --json ublk list | jq -r '[.devices[] | select(.error != "") | .state] | unique[]')" = unknown ] || fail "$(vpool --json ublk list)"
mv /dev/hidden /dev/ublk-control
[ "$(vpool --json ublk list | jq -r '.devices[].error')" = "" ] || fail "they answer: $(vpool --json ublk list)"

step "a device that the kernel does not stop stays attached and served, for the next daemon too"
reads() { dd if=/dev/ublkb8 of=/dev/null bs=4k count=1 iflag=direct; }
state() { vpool --json attachments | jq -r '.attachments[] | select(.volume == "tank/b") | .state'; }
mv /dev/ublk-control /dev/hidden
refused 'there is no /dev/ublk-control' vpool detach tank/b --force
[ "$(state)" = serving ] && reads || fail "$(vpool attachments)"
refused 'already' vpool attach tank/b --ublk
vpool events | grep -q 'attachment.stuck.*stays' || fail "no event"

step "a failed attachment is tried again as it is, not as another one"
daemon_kill
daemon_start
[ "$(state)" = failed ] || fail "$(vpool attachments)"
refused 'attach it without a number' vpool attach tank/b --ublk --number 9
refused 'attach it without a number' vpool attach tank/b --ublk --depth 32
refused 'there is no /dev/ublk-control' vpool attach tank/b --ublk --number 8
mv /dev/hidden /dev/ublk-control
vpool attach tank/b --ublk --number 8 # likewise: it is tried again every few seconds
[ "$(state)" = serving ] && reads || fail "$(vpool attachments)"

step "without a record a device is not taken over"
daemon_kill
mv /run/vpool/ublk/ublkb8 "$T/record"
daemon_start
vpool --json attachments | jq -r '.attachments[].error' | grep -q 'no record says that vpool made it' || fail "$(vpool attachments)"
mv "$T/record" /run/vpool/ublk/ublkb8
vpool attach tank/b --ublk # unless the daemon has tried again by itself meanwhile
[ "$(state)" = serving ] && reads || fail "$(vpool attachments)"

step "a daemon that does not know the pool sees orphans, and says so at its start"
mount /dev/ublkb7p1 /mnt/v
daemon_kill
mv "$T/state" "$T/old-state"
cp /run/vpool/ublk/ublkb7 /run/vpool/ublk/ublkb55
daemon_start
until_ok 5 eval 'vpool events | grep -q "ublk.orphan.*tank/a.*vpool ublk remove 7"' || fail "$(vpool events)"
ok vpool ublk list
grep -qE '/dev/ublkb7 +orphan +tank/a +waiting +- +mounted at /mnt/v' <<<"$out" || fail "$out"
[ "$(ls /run/vpool/ublk | xargs)" = "ublkb7 ublkb8" ] || fail "records: $(ls /run/vpool/ublk)"

step "one that is in use is removed only with --force, and its users see errors"
dd if=/dev/ublkb7 of=/dev/null bs=4k count=1 iflag=direct 2>"$T/dd" &
waiting=$!
refused 'mounted at /mnt/v' vpool ublk remove 7
ok vpool ublk remove 7 --force --dry-run
grep -q 'would remove /dev/ublkb7 .of tank/a.; its users see errors: mounted at /mnt/v' <<<"$out" || fail "$out"
kill -0 $waiting || fail "a dry run ended it: $(cat "$T/dd")"
ok vpool ublk remove /dev/ublkb7 --force
wait $waiting && fail "the request that waited saw no error"
grep -q 'Input/output error' "$T/dd" || fail "dd: $(cat "$T/dd")"
[ ! -e /dev/ublkb7 ] && [ ! -e /dev/ublkc7 ] && [ ! -e /run/vpool/ublk/ublkb7 ] || fail "something is left of it"
vpool events | grep -q ublk.removed || fail "no event"
umount /mnt/v

step "one that nobody uses needs no --force"
ok vpool ublk remove 8

step "a device of another program is not touched"
rm -rf "$T/state"
daemon_kill
mv "$T/old-state" "$T/state"
daemon_start
[ -b /dev/ublkb8 ] || fail "tank/b did not come back"
ok vpool detach tank/a
mv /run/vpool/ublk/ublkb8 "$T/record"
daemon_kill
mv "$T/state" "$T/old-state"
daemon_start
vpool ublk list | grep -qE '/dev/ublkb8 +other +- +waiting' || fail "$(vpool ublk list)"
refused 'not made by vpool' vpool ublk remove 8 --force
sed 's/^VPOOL_TAG=...../VPOOL_TAG=00000/' "$T/record" >/run/vpool/ublk/ublkb8
refused 'not made by vpool' vpool ublk remove 8 --force

step "one of a pool that this daemon knows comes back, so --force is needed"
cp "$T/record" /run/vpool/ublk/ublkb8
daemon_stop
rm -rf "$T/state"
mv "$T/old-state" "$T/state"
sed -i 's|/dev/vd|/dev/none|' "$T/state/pools.json"
echo 'disk-dirs = [ "/nowhere" ];' >"$T/conf"
daemon_start -c "$T/conf"
refused "this daemon knows pool 'tank'" vpool ublk remove 8
ok vpool ublk remove 8 --force

step "the module unloads"
ok rmmod ublk_drv
