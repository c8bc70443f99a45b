# A file system on a block device, under loads that verify, while its volume moves between two pools and the daemon is
# killed in each phase of the move: no error, no wrong block, and a clean file system. VPOOL_KILLS more kills at moments of
# the switch (4); VPOOL_SEED repeats their moments.
. "$(dirname "$0")/guest.sh"
need fio mkfs.ext4 e2fsck
switches=$((${VPOOL_KILLS:-10} > 10 ? VPOOL_KILLS / 4 : 4))
RANDOM=${VPOOL_SEED:=$((SRANDOM % 32768))}
say "VPOOL_SEED=$VPOOL_SEED"
end_here() {
    local rc=$?
    : >"$T/enough"
    umount /mnt/v 2>/dev/null
    for v in $(vpool --json attachments 2>/dev/null | jq -r '.attachments[].volume'); do
        vpool detach "$v" --all --force >/dev/null 2>&1
    done
    vpool destroy dock >/dev/null 2>&1
    (exit $rc)
    guest_end
}
trap end_here EXIT
pool
ok vpool create dock --force /dev/vde
ok vpool volume create tank/a --size 128M
attach tank/a --ublk --number 7
ok mkfs.ext4 -q "$dev"
ok mount "$dev" /mnt/v

# Copies one file under ever new names until told to stop; each is durable before the next.
noise 200K >"$T/data"
copies() {
    local n=0
    until [ -e "$T/enough" ]; do
        n=$((n % 50 + 1))
        cp "$T/data" "/mnt/v/$n" && sync "/mnt/v/$n" && cmp "$T/data" "/mnt/v/$n" || return 1
    done
}
copies >"$T/copies" 2>&1 &
copier=$!
fio --name=t --filename=/mnt/v/fio --direct=1 --ioengine=libaio --bs=4k --rw=randwrite --verify=crc32c --verify_backlog=128 \
    --size=16M --iodepth=4 --fdatasync=32 --time_based --runtime=36000 >"$T/fio" 2>&1 &
load=$!
requests() { vpool --json attachments | jq '[.attachments[].requests] | add // 0'; }
served() { [ "$(requests)" -ge "$1" ]; }
loads_go_on() { # WHEN
    until_ok 20 served $(($(requests) + 50)) || fail "$1: no request comes through"
    kill -0 $copier 2>/dev/null || fail "$1: copying ended: $(cat "$T/copies")"
    kill -0 $load 2>/dev/null || fail "$1: fio ended: $(cat "$T/fio")"
}
nap() { sleep "0.$(printf '%03d' $((RANDOM % $1)))"; } # a random moment, not a wait
here() { vpool --json volume list | jq -r '[.volumes[]|select(.state == "online")|.pool + "/" + .name]|join(" ")'; }
is_settled() {
    [ "$(vpool --json migrate status | jq '.in_doubt|length')" = 0 ] && [[ "$(here)" =~ ^(tank|dock)/a$ ]] &&
        [ "$(vpool --json volume list | jq '.volumes|length')" = 1 ]
}
move() { # [options]: begins, to the other pool
    from=$(here)
    case $from in tank/a) to=dock ;; dock/a) to=tank ;; *) fail "it is nowhere: $(vpool volume list)" ;; esac
    ok vpool migrate "$from" --to $to "$@"
}
now() { vpool --json migrate status | jq -r ".migrations[-1].$1"; }
phase_is() { [ "$(now phase)" = "$1" ]; }
is_ready() { [ "$(now ready)" = true ]; }
killed=''
kill_now() { # NAME
    daemon_kill
    daemon_start
    until_ok 20 is_settled || fail "$1: not settled: $(vpool volume list) $(vpool migrate status)"
    killed="$killed $1:$([ "$(here)" = "$from" ] && echo stays || echo moved)"
    loads_go_on "after a kill ($1)"
}
loads_go_on "at first"

step "killed while it copies, and while it mirrors"
move --bandwidth 2M
until_ok 20 phase_is copying || fail "it does not copy: $(vpool migrate status)"
nap 300
kill_now copying
[ "$(here)" = "$from" ] || fail "it has moved"
move --mode mirror --await-guest 60
until_ok 20 phase_is mirroring || fail "it is not mirrored: $(vpool migrate status)"
nap 100
kill_now mirroring
[ "$(here)" = "$from" ] || fail "it has moved"

step "and $switches times around the switch"
for i in $(seq "$switches"); do
    move --mode "$([ $((i % 2)) = 0 ] && echo live || echo mirror)" --await-guest 60
    until_ok 30 is_ready || fail "it is not ready: $(vpool migrate status)"
    vpool migrate guest-paused "$from" >"$T/paused" 2>&1 &
    caller=$!
    nap 600 # the command alone takes some of it
    kill_now switch
    wait $caller # whatever it was told
done
say "ends:$killed"

step "a move without a kill goes through, and what is there is what was written"
move --wait
[ "$(here)" = "$to/a" ] || fail "it is in $(here)"
loads_go_on "at the end"
: >"$T/enough"
wait $copier || fail "copying: $(cat "$T/copies")"
kill -INT $load
wait $load # interrupted, so its status says nothing
grep -q 'err= 0:' "$T/fio" && ! grep -q 'verify: bad' "$T/fio" || fail "fio: $(cat "$T/fio")"
for f in /mnt/v/[0-9]*; do cmp "$T/data" "$f" || fail "$f differs"; done
ok umount /mnt/v
e2fsck -fn "$dev" >"$T/fsck" 2>&1 || fail "e2fsck: $(cat "$T/fsck")"
