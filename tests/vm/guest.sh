# Sourced by the tests that run inside the test machine: a daemon of its own (tests/lib/daemon.sh) and
# a pool on the machine's disks (tests/vm/check): /dev/vda and vdb, vdc which does not survive t_disk_lost,
# vdd which is small enough to be filled, vde.
. "$(dirname "${BASH_SOURCE[0]}")/../lib/daemon.sh"
[ -n "${VPOOL_IN_VM:-}" ] || skip "only in the test machine (tests/vm/check)"
modprobe -a ublk_drv ext4 xfs
# The kernel sees a killed daemon's devices until the next one takes them: nothing may stay for the
# next test.
guest_end() {
    local rc=$?
    trap - EXIT
    umount /mnt/v 2>/dev/null
    for v in $(vpool --json attachments 2>/dev/null | jq -r '.attachments[].volume'); do
        vpool detach "$v" --all --force >/dev/null 2>&1
    done
    vpool destroy tank >/dev/null 2>&1
    [ "$rc" = 0 ] || { echo "--- the daemon's log"; tail -30 "$T/log"; echo "--- the kernel's"; dmesg | tail -15; }
    [ -z "$daemon_pid" ] || { kill "$daemon_pid" && wait "$daemon_pid"; }
    rm -rf "$T"
    exit "$rc"
}
trap guest_end EXIT
mkdir -p /mnt/v
pool() { # [options of create] : tank on vda and $second
    daemon_start
    ok vpool create tank --force "$@" /dev/vda "${second:-/dev/vdb}"
}
daemon_take_over() { # the next daemon ends the one that runs, and takes what it served
    local old=$daemon_pid
    vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground --takeover >>"$T/log" 2>&1 &
    daemon_pid=$!
    wait "$old" || fail "the old daemon ended with $?"
    until_ok 10 daemon_answers || fail "the new daemon does not answer"
}
attach() { # VOLUME [options]: $dev
    dev=$(vpool attach "$@") || fail "attach $*"
    [ -b "$dev" ] || fail "'$dev' is not a block device"
}
used() { vpool --json volume show "$1" | jq '[.. | .allocated_bytes? // empty] | first'; }
noise() { head -c "$1" /dev/urandom; }
kernel_at_least() { [ "$(printf '%s\n' "$1" "$(uname -r)" | sort -V | head -1)" = "$1" ]; }
