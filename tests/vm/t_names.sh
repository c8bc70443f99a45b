# Stable names: packaging/61-vpool.rules with the real udev.
# kernel: floor (the names come from a rule and from sysfs)
. "$(dirname "$0")/guest.sh"
udevd=/lib/systemd/systemd-udevd
[ -x $udevd ] || skip "no udev here"
need udevadm sfdisk
export SYSTEMD_IGNORE_CHROOT=1
mkdir -p /run/udev/rules.d
cp packaging/61-vpool.rules /run/udev/rules.d/
$udevd >"$T/udevd" 2>&1 &
udevd_pid=$!
end_udevd() { kill "$udevd_pid" 2>/dev/null; guest_end; }
trap end_udevd EXIT
until_ok 10 udevadm control --ping || fail "udevd does not answer: $(cat "$T/udevd")"
is_link() { [ "$(readlink -f "$1")" = "$2" ]; }
pool
ok vpool volume create tank/a --size 100M
uuid=$(vpool --json volume show tank/a | jq -r .uuid)

step "a volume has its name, and one by its uuid"
attach tank/a --ublk --number 7
until_ok 10 is_link /dev/vpool/tank/a /dev/ublkb7 || fail "$(ls -lR /dev/vpool; cat "$T/udevd")"
until_ok 10 is_link "/dev/disk/by-id/vpool-$uuid" /dev/ublkb7 || fail "$(ls -l /dev/disk/by-id)"

step "so have its partitions"
echo ',40M,L' | sfdisk -q /dev/vpool/tank/a >/dev/null || fail sfdisk
until_ok 10 is_link /dev/vpool/tank/a+part1 /dev/ublkb7p1 || fail "$(ls -lR /dev/vpool)"
until_ok 10 is_link "/dev/disk/by-id/vpool-$uuid-part1" /dev/ublkb7p1 || fail "$(ls -l /dev/disk/by-id)"

step "odd names are themselves"
odd='0:a.b_c--d...e-part1'
ok vpool volume create "tank/$odd" --size 10M
attach "tank/$odd" --ublk --number 8
until_ok 10 is_link "/dev/vpool/tank/$odd" /dev/ublkb8 || fail "$(ls -lR /dev/vpool)"
is_link /dev/vpool/tank/a+part1 /dev/ublkb7p1 || fail "the partition's name was taken"

step "names stay while the daemon is dead, and when the next one has taken over"
daemon_kill
is_link /dev/vpool/tank/a /dev/ublkb7 || fail "gone with the daemon"
daemon_start
udevadm trigger --settle --subsystem-match=block || fail "udevadm trigger"
is_link /dev/vpool/tank/a /dev/ublkb7 && is_link /dev/vpool/tank/a+part1 /dev/ublkb7p1 || fail "$(ls -lR /dev/vpool)"

step "a name goes with its device"
ok vpool detach tank/a
until_ok 10 eval '[ ! -e /dev/vpool/tank/a ] && [ ! -e /dev/vpool/tank/a+part1 ]' || fail "$(ls -lR /dev/vpool)"

step "a device of the same number that is another volume's has that one's name"
ok vpool detach "tank/$odd"
attach "tank/$odd" --ublk --number 7
until_ok 10 is_link "/dev/vpool/tank/$odd" /dev/ublkb7 || fail "$(ls -lR /dev/vpool)"
[ ! -e /dev/vpool/tank/a ] || fail "the old name is back"

step "twenty devices, one after the other: udev and the daemon do not wait for each other"
for _ in $(seq 20); do
    attach tank/a --ublk
    until_ok 10 is_link /dev/vpool/tank/a "$dev" || fail "$dev has no name: $(ls -lR /dev/vpool)"
    until_ok 10 vpool detach tank/a || fail "$(vpool detach tank/a 2>&1)"
done
