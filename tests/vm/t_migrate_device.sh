# A block device stays while its volume moves to another pool: its users see a pause and no error,
# its names follow, and the next daemon takes it over.
. "$(dirname "$0")/guest.sh"
udevd=/lib/systemd/systemd-udevd
[ -x $udevd ] || skip "no udev here"
need udevadm sfdisk fio
export SYSTEMD_IGNORE_CHROOT=1
mkdir -p /run/udev/rules.d
cp packaging/61-vpool.rules /run/udev/rules.d/
$udevd >"$T/udevd" 2>&1 &
udevd_pid=$!
end_here() {
    local rc=$?
    kill "$udevd_pid" 2>/dev/null
    for v in $(vpool --json attachments 2>/dev/null | jq -r '.attachments[].volume'); do
        vpool detach "$v" --all --force >/dev/null 2>&1
    done
    vpool destroy dock >/dev/null 2>&1
    (exit $rc)
    guest_end
}
trap end_here EXIT
until_ok 10 udevadm control --ping || fail "udevd does not answer: $(cat "$T/udevd")"
is_link() { [ "$(readlink -f "$1")" = "$2" ]; }
names() { ls -lR /dev/vpool; cat /run/vpool/ublk/ublkb7; }
names_are() { # POOL/VOL
    until_ok 10 is_link "/dev/vpool/$1" /dev/ublkb7 || fail "$(names)"
    until_ok 10 is_link "/dev/vpool/$1+part1" /dev/ublkb7p1 || fail "$(names)"
    is_link "/dev/disk/by-id/vpool-$uuid" /dev/ublkb7 || fail "$(ls -l /dev/disk/by-id)"
}
no_name() { until_ok 10 eval "[ ! -e /dev/vpool/$1 ] && [ ! -e /dev/vpool/$1+part1 ]" || fail "$(names)"; }
record_has() { grep -qx "VPOOL_$1" /run/vpool/ublk/ublkb7; }
move() { ok vpool migrate "$1" --to "$2" --wait "${@:3}"; }
load_start() {
    fio --name=t --filename=/dev/ublkb7p1 --direct=1 --ioengine=libaio --bs=4k --rw=randrw --verify=crc32c \
        --verify_backlog=256 --size=32M --iodepth=4 --time_based --runtime=12 --output-format=json --output="$T/fio" >"$T/fio.log" 2>&1 &
    load=$!
    local before
    before=$(vpool --json attachments | jq '.attachments[0].requests')
    until_ok 60 eval "[ \"\$(vpool --json attachments | jq '.attachments[0].requests')\" -gt $((before + 200)) ]" || fail "no load: $(cat "$T/fio.log" "$T/fio")"
}
load_end() {
    wait $load || fail "fio: $(cat "$T/fio")"
    same "$(jq '[.jobs[].error] | max' "$T/fio")" 0 "errors of fio"
    echo "pause: $(jq '[.jobs[] | .read.lat_ns.max, .write.lat_ns.max] | max / 1000000 | floor' "$T/fio") ms"
}

pool
ok vpool create dock --force /dev/vde
ok vpool volume create tank/a --size 100M
uuid=$(vpool --json volume show tank/a | jq -r .uuid)
attach tank/a --ublk --number 7
echo ',40M,L' | sfdisk -q /dev/ublkb7 >/dev/null || fail sfdisk
names_are tank/a
tank_uuid=$(sed -n 's/VPOOL_POOL_UUID=//p' /run/vpool/ublk/ublkb7)

step "a load that verifies goes on while the volume moves there, back, and there, in each mode"
load_start
for i in 1 2; do
    move tank/a dock/b
    move dock/b tank/a --mode mirror
done
move tank/a dock/b --mode offline
load_end
same "$(vpool --json migrate status | jq -r '[.migrations[].mode]|join(" ")')" "live mirror live mirror offline" modes
same "$(vpool --json migrate status | jq '[.migrations[].again_bytes]|add > 0')" true "copied again"
vpool migrate status

step "the names are those of the new pool"
names_are dock/b
no_name tank/a
same "$(vpool --json ublk list | jq -r '.devices[]|select(.number==7)|.volume+" "+.owner')" "dock/b here" "ublk list"
same "$(vpool --json attachments | jq -r '.attachments[]|.volume+" "+.uri')" "dock/b /dev/ublkb7" attachments

step "the next daemon takes the device over"
dd if=/dev/ublkb7p1 of="$T/before" bs=1M status=none
daemon_kill
daemon_start
same "$(vpool --json attachments | jq -r '.attachments[0]|.state+" "+(.recovered|tostring)')" "serving true" attachments
names_are dock/b

step "also when its record still names the pool that the volume has left"
daemon_kill
sed -i "s/^VPOOL_POOL=.*/VPOOL_POOL=tank/; s/^VPOOL_VOLUME=.*/VPOOL_VOLUME=a/; s/^VPOOL_POOL_UUID=.*/VPOOL_POOL_UUID=$tank_uuid/" /run/vpool/ublk/ublkb7
for d in /sys/class/block/ublkb7 /sys/class/block/ublkb7p1; do echo change >$d/uevent; done
daemon_start
same "$(vpool --json attachments | jq -r '.attachments[0]|.state+" "+(.recovered|tostring)')" "serving true" attachments
record_has POOL=dock && record_has VOLUME=b || fail "$(names)"
names_are dock/b
no_name tank/a

step "and its data are what they were"
dd if=/dev/ublkb7p1 of="$T/after" iflag=direct bs=1M status=none
cmp "$T/before" "$T/after" || fail "the data differ"
