#!/usr/bin/env bash
# NBD clients stay connected while their volume moves between pools, and find it by each name that
# it had. threads: yes
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdinfo nbdsh
daemon_start
ok vpool create tank --raid mirror:2 --size 512M "$T/a0" "$T/a1"
ok vpool create dock --raid mirror:2 --size 512M "$T/b0" "$T/b1"
ok vpool volume create tank/v --size 64M
ok vpool attach tank/v --nbd "unix:$T/n"
ok vpool attach tank/v --nbd tcp:127.0.0.1:0 --readonly

# Writes blocks with a number that grows, until there is a file "stop"; then all are as they were
# written last.
cat >"$T/writer.py" <<EOP
import os, random, struct
random.seed(5)
blocks = 64 * 256
wrote = {}
n = 0
def stamp(i, n):
    return struct.pack("<QQ", i, n) * 256
while not os.path.exists("$T/stop"):
    i = random.randrange(blocks)
    n += 1
    h.pwrite(stamp(i, n), i * 4096)
    wrote[i] = n
    if n % 100 == 0:
        h.flush()
    if n == 200:
        open("$T/ready", "w").close()
for i, n in wrote.items():
    assert h.pread(4096, i * 4096) == stamp(i, n), (i, n)
print("verified", len(wrote), "blocks")
EOP
writer_start() {
    rm -f "$T/stop" "$T/ready"
    nbd_py "$1" "$T/writer.py" >"$T/writer" 2>&1 &
    writer=$!
    until_ok 30 [ -e "$T/ready" ] || fail "the writer does not write: $(cat "$T/writer")"
}
writer_end() {
    touch "$T/stop"
    wait $writer || fail "the writer: $(cat "$T/writer")"
    grep -q verified "$T/writer" || fail "the writer: $(cat "$T/writer")"
}
uris() { field '[.attachments[].uri]|sort|join(" ")' vpool attachments; }
found() { # NAME…
    for name in "$@"; do
        same "$(nbdinfo --size "$(uri "$name" "$T/n")")" $((64 << 20)) "the export as '$name'"
    done
}
move() { ok vpool migrate "$1" --to "$2" --mode offline --wait; }

step "a client writes on while its volume moves, and reads what it wrote"
writer_start "$(uri tank/v "$T/n")"
move tank/v dock/w
writer_end

step "the export is found by its new name, by its former name and by none"
found dock/w tank/v ''
refused 'No such|no such' nbdinfo "$(uri dock/v "$T/n")"
ok nbdinfo --list "$(uri '' "$T/n")"
grep -q 'export="dock/w"' <<<"$out" && ! grep -q 'export="tank/v"' <<<"$out" || fail "list: $out"
same "$(field '[.attachments[]|.volume+" "+.state+" "+(.aliases|join(","))]|unique|join(";")' vpool attachments)" \
    "dock/w serving tank/v" "attachments"
grep -q '/dock/w' <<<"$(uris)" && ! grep -q 'tank/v' <<<"$(uris)" || fail "uris: $(uris)"
refused 'not attached|no volume' vpool detach tank/v --nbd "unix:$T/n"
same "$(field '[.events[]|select(.kind=="attachment.moved")|.subject]|join(" ")' vpool events)" "dock/w dock/w" events

step "restarts keep all names"
before=$(uris)
daemon_stop
daemon_start
same "$(uris)" "$before" "uris after a restart"
found dock/w tank/v ''
daemon_kill
daemon_start
same "$(uris)" "$before" "uris after a kill"
found dock/w tank/v ''

step "there and back again, while a client writes"
writer_start "$(uri tank/v "$T/n")"
for _ in 1 2 3; do
    move dock/w tank/v
    move tank/v dock/w
done
writer_end
found dock/w tank/v ''
same "$(field '.attachments[0].aliases|length' vpool attachments)" 1 "each name is kept once"

step "the pool that the volume left can be exported and comes back without it"
ok vpool export tank
ok vpool import -d "$T" tank
same "$(field '[.attachments[]|.volume+" "+.state]|unique|join(";")' vpool attachments)" "dock/w serving" "attachments"

step "the attachments can be ended"
ok vpool detach dock/w --all
same "$(field '.attachments|length' vpool attachments)" 0 "attachments"
daemon_stop
