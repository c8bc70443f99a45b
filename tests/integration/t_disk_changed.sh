#!/usr/bin/env bash
# What happens to a disk behind the daemon's back is noticed while the pool is open, not at the next
# start: labels and roots are written again, and what cannot be mended is said.
. "$(dirname "$0")/../lib/daemon.sh"
need jq
daemon_start
ok vpool create tank --size 256M "$T/d0"
ok vpool create other --raid mirror:2 --size 256M "$T/d1" "$T/d2"
ok vpool volume create tank/v --size 16M
look() { vpool doctor >/dev/null 2>&1 || true; } # it exits with 3 for what it finds, of other pools too
says() { # POOL TEXT: in a warning, an event, and the flag
    vpool status "$1" | tr -s '\n ' ' ' | grep -q "$2" && vpool events | grep 'disk.changed' | grep -q "$2" &&
        [ "$(field '.pools[0].health|index("disks")!=null' vpool status "$1")" = true ]
}

step "nothing is said of disks that are what they were"
same "$(field '.pools[0].health|length' vpool status tank)" 0 flags
same "$(field '.pools[0].health|length' vpool status other)" 0 flags

step "labels and roots that are overwritten are written again"
head -c 1M /dev/urandom | dd of="$T/d0" conv=notrunc bs=1M status=none
head -c 1M /dev/urandom | dd of="$T/d0" conv=notrunc bs=1M seek=255 status=none
look
until_ok 10 says tank '4 copies of its label and 2 of the newest root' || fail "not said: $(vpool status tank)"
daemon_kill
daemon_start
until_ok 10 sh -c 'vpool list | grep -q "tank.*online"' || fail "the pool is not back: $(vpool list)"
ok vpool volume show tank/v

step "a file that was truncated is as long again, with its labels"
truncate -s 128M "$T/d0"
look
until_ok 10 says tank 'truncated to 128' || fail "not said: $(vpool status tank)"
same "$(stat -c %s "$T/d0")" $((256 << 20)) size

step "a file that moved is told, and not any more when it is back"
mv "$T/d1" "$T/away"
look
until_ok 10 says other 'not at its path' || fail "not said: $(vpool status other)"
mv "$T/away" "$T/d1"
look
gone() { [ "$(field '.pools[0].health|length' vpool status other)" = 0 ]; }
until_ok 10 gone || fail "still said: $(vpool status other)"

step "a file that was removed is told"
rm "$T/d2"
look
until_ok 10 says other 'lives only until' || fail "not said: $(vpool status other)"
daemon_stop
