# A boot and a shutdown by systemd (first process of a pid namespace of its own) with the unit and the
# udev rule of packaging/ and a file system in /etc/fstab.
# kernel: floor (what it asks of the kernel is in t_ext4 and t_kill)
. "$(dirname "$0")/guest.sh"
[ -x /lib/systemd/systemd ] && [ -x /lib/systemd/systemd-udevd ] || skip "no systemd with udev here"
need unshare dumpe2fs
units=/run/systemd/system

# The daemon's pool, with an attachment whose device this kernel does not have yet, as after power on.
pool --raid mirror
ok vpool volume create tank/home --size 200M
attach tank/home --ublk
ok mkfs.ext4 -q "$dev"
daemon_stop
mv "$T/state" /var/lib/vpool
daemon_start
ok vpool ublk remove "$dev"
daemon_stop

mkdir -p $units /run/udev/rules.d /srv/home
cp packaging/61-vpool.rules /run/udev/rules.d/
sed "s|^ExecStart=.*|ExecStart=$bin/vpoold --foreground|" packaging/vpoold.service >$units/vpoold.service
echo '/dev/vpool/tank/home /srv/home ext4 _netdev 0 2' >/etc/fstab
for u in systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-clean.timer lvm2-monitor.service; do
    ln -s /dev/null "$units/$u" # the first empty /tmp, the last waits for what is not here
done
cat >$units/test.target <<U
[Unit]
Requires=basic.target
Wants=remote-fs.target vpoold.service test.service
U
cat >$units/test.service <<U
[Unit]
After=remote-fs.target vpoold.service
[Service]
Type=oneshot
Environment=VPOOL_SOCKET=/run/vpool/vpoold.sock
ExecStart=/bin/bash $T/script
U
cat >"$T/script" <<S
exec >$T/said 2>&1
export PATH=$PATH
mountpoint /srv/home || systemctl status vpoold.service srv-home.mount
mountpoint -q /srv/home && echo booted >/srv/home/file
vpool attachments
systemctl restart vpoold.service
mountpoint -q /srv/home && echo restarted >>/srv/home/file
systemctl show -p StartLimitIntervalUSec -p NRestarts vpoold.service >$T/limit
vpool --json attachments >$T/attachments
systemctl poweroff --no-block
S
# Mounts are shared, as on any machine of systemd's: so those of the host reach the daemon's namespace.
boot() {
    unshare --pid --fork --mount --kill-child --mount-proc sh -c "mount --make-rshared / && exec /lib/systemd/systemd --system \
        --unit=test.target --log-target=console --default-standard-output=null" >"$T/boot" 2>&1 </dev/null
}
failed() { # WHAT: shows what the boot said
    tail -40 "$T/boot"
    cat "$T/said"
    fail "$1"
}

step "the file system is mounted once the daemon serves, and a restart of the daemon leaves it mounted"
boot_end() { # what was booted ends with this test, however it ends
    local rc=$?
    kill -9 "$(pgrep -P "$booted" unshare)" "$booted" 2>/dev/null
    (exit $rc)
    guest_end
}
boot &
booted=$!
trap boot_end EXIT
until_ok 150 test -s "$T/attachments" || { cat "$T/said"; failed "not booted"; }
grep -q 'serving  *1 .*/dev/ublkb.*mounted at /srv/home' "$T/said" || failed "not mounted, or the daemon does not see it"
[ "$(jq -r '.attachments[0].used_by' "$T/attachments")" = 'mounted at /srv/home' ] || failed "the restart: $(cat "$T/attachments")"

step "however often it exits, systemd starts it again"
grep -qx 'StartLimitIntervalUSec=0' "$T/limit" || failed "the unit has a limit: $(cat "$T/limit")"

step "at the shutdown it is unmounted while the daemon still serves"
until_ok 120 eval "! kill -0 $booted" || failed "it does not end"
trap guest_end EXIT
rm -rf "$T/state"
mv /var/lib/vpool "$T/state"
daemon_start
dev=$(vpool --json attachments | jq -r '.attachments[0].uri')
ok dumpe2fs -h "$dev"
grep -q 'Filesystem state: *clean' <<<"$out" || failed "not unmounted cleanly: $out"
! grep -q needs_recovery <<<"$out" || failed "not unmounted: $out"
ok mount "$dev" /mnt/v
[ "$(cat /mnt/v/file)" = $'booted\nrestarted' ] || failed "the file says: $(cat /mnt/v/file)"
