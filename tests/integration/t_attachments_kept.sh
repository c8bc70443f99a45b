#!/usr/bin/env bash
# What the pool remembers of an attachment: the owner and mode of its socket, through restarts and an export;
# and one that could not be started comes back by itself.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdinfo
daemon_start
ok vpool create tank --size 256M "$T/d0"
ok vpool volume create tank/a --size 64M
ok vpool volume create tank/b --size 64M

state_of() { field ".attachments[]|select(.volume==\"$1\").state" vpool attachments; }
group=$(id -G | tr ' ' '\n' | tail -1)

step "owner, group and mode of a socket are what was asked for, also after a restart"
refused 'no group' vpool attach tank/a --nbd "unix:$T/a.sock" --group no-such-group
refused 'octal' vpool attach tank/a --nbd "unix:$T/a.sock" --mode 0999
usage 'go with' vpool attach tank/a --nbd tcp:127.0.0.1:0 --mode 0600
[ ! -e "$T/a.sock" ] || fail "a refused attach left a socket"
ok vpool attach tank/a --nbd "unix:$T/a.sock" --owner "$(id -un)" --group "$group" --mode 0666
same "$(stat -c '%u %g %a' "$T/a.sock")" "$(id -u) $group 666" "the socket"
ok vpool attach tank/b --nbd "unix:$T/b.sock"
daemon_stop
daemon_start
same "$(stat -c '%u %g %a' "$T/a.sock")" "$(id -u) $group 666" "the socket after a restart"
same "$(field ".attachments[]|select(.volume==\"tank/a\")|.mode" vpool attachments)" 0666 "mode"
same "$(stat -c '%a' "$T/b.sock")" 660 "the other socket"

step "one that cannot start says so, and is served when what was in the way is gone"
daemon_stop
mkdir "$T/b.sock"
daemon_start
same "$(state_of tank/b)" failed "state"
ok vpool events
grep -q 'attachment.failed.*tank/b' <<<"$out" || fail "no event: $out"
grep -q 'attachment.failed: tank/b' "$T/log" || fail "no line in the log"
rmdir "$T/b.sock"
until_ok 20 eval '[ "$(state_of tank/b)" = serving ]' || fail "it is not tried again"
ok vpool events
same "$(grep -c 'attachment.failed' <<<"$out")" 1 "failures that are told"
grep -q 'attachment.restored.*tank/b' <<<"$out" || fail "no event when it is back: $out"

step "an export ends attachments, and the import brings them back"
ok vpool export tank
[ ! -e "$T/a.sock" ] || fail "the socket is still there"
ok vpool import tank -d "$T"
same "$(field '.attachments|length' vpool attachments)" 2 "attachments"
same "$(stat -c '%u %g %a' "$T/a.sock")" "$(id -u) $group 666" "the socket after an import"
ok nbdinfo --size "$(uri tank/a "$T/a.sock")"
daemon_stop
