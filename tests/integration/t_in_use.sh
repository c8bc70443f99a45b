#!/usr/bin/env bash
# What a client uses is not taken from it without a word: whoever would do that is told who it is.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdsh
daemon_start
ok vpool create tank --raid single --size 256M "$T/d0"
ok vpool volume create tank/a --size 64M
ok vpool attach tank/a --nbd "unix:$T/n"
ok vpool attach tank/a --nbd "unix:$T/idle"

clients() { field ".attachments[]|select(.address==\"unix:$T/n\").connections" vpool attachments; }
mkfifo "$T/hold"
nbdsh -u "$(uri tank/a "$T/n")" -c "h.pwrite(b'1' * 4096, 0)
open('$T/hold').read()
h.pwrite(b'2' * 4096, 0)
h.flush()" >"$T/client" 2>&1 &
client=$!
until_ok 10 eval '[ "$(clients)" = 1 ]' || fail "the client is not there: $(cat "$T/client")"

step "detach names the client and leaves all attachments, those that nobody uses as well"
refused "clients .pid $client .*--force" vpool detach tank/a --nbd "unix:$T/n"
refused "pid $client" vpool detach tank/a --all
same "$(field '.attachments|length' vpool attachments)" 2 "attachments"

step "delete, rename and a shrink name it as well, instead of saying how to cut it"
refused "in use .*pid $client" vpool volume delete tank/a
grep -q -- '--all' <<<"$out" && fail "it leads to detach --all: $out"
refused "in use .*pid $client" vpool volume rename tank/a b
refused "in use .*pid $client" vpool volume resize tank/a --size 32M
ok vpool volume resize tank/a --size 32M --force
grep -q "pid $client" <<<"$out" || fail "a forced shrink names nobody: $out"
ok vpool events
grep -q "volume.resized.*in use.*pid $client" <<<"$out" || fail "nor does its event: $out"

step "the client went on all the time"
echo >"$T/hold"
wait $client || fail "the client saw an error: $(cat "$T/client")"

step "attachments that nobody uses are counted in good English"
until_ok 10 eval '[ "$(clients)" = 0 ]' || fail "the client is still there"
refused 'tank/a has 2 attachments, which nobody uses' vpool volume delete tank/a

step "an attachment that nobody uses is detached, and a used one with --force"
ok vpool detach tank/a --nbd "unix:$T/idle"
refused 'tank/a has 1 attachment, which nobody uses' vpool volume delete tank/a
nbdsh -u "$(uri tank/a "$T/n")" -c "open('$T/hold').read()" >"$T/client" 2>&1 &
client=$!
until_ok 10 eval '[ "$(clients)" = 1 ]' || fail "the second client is not there"
ok vpool detach tank/a --force
echo >"$T/hold"
wait $client
daemon_stop
