#!/usr/bin/env bash
# Configuration: the sample is right, mistakes are refused with file and line.
. "$(dirname "$0")/../lib/daemon.sh"

check() { vpoold --check-config -c "$T/conf"; }
bad() { # LINE PATTERN TEXT
    printf '%s\n' "$3" >"$T/conf"
    refused "$T/conf:$1: .*$2" check
}

step "the sample is right, and says the defaults"
ok vpoold --check-config -c packaging/vpoold.conf.sample
sample=$out
: >"$T/conf"
ok check
same "$sample" "$out" "the sample against the defaults"

step "unknown keys and groups"
bad 1 "unknown key 'sockets'.*known here" 'sockets = "/x";'
bad 3 "unknown key 'port' in group nbd" $'# a comment\nreactors = 1;\nnbd: { port = 1; };'
bad 1 "unknown key 'ublk'" 'ublk: { };'

step "values"
bad 1 "'reactors' must be a number" 'reactors = "two";'
bad 1 "'reactors' is 1000, which is not between" 'reactors = 1000;'
bad 1 "'reactors' must be a number" 'reactors = -1;'
bad 2 "'metadata-memory' must be a size" $'\nmetadata-memory = "much";'
bad 1 "'metadata-memory' is 1, which" 'metadata-memory = 1;'
bad 1 "'socket' must be an absolute path" 'socket = "rel";'
bad 1 "'socket' is longer" "socket = \"/$(printf 'x%.0s' {1..200})\";"
bad 1 "'log-level' must be" 'log-level = "loud";'
bad 1 "'tcp-bind' must be" 'nbd: { tcp-bind = "world"; };'
bad 1 "'nbd' must be a group" 'nbd = 1;'
bad 1 "'listen' must be \"\", \"unix:/PATH\" or" 'migrate: { listen = "here"; };'
bad 1 "'listen' must be an absolute path" 'migrate: { listen = "unix:here"; };'
bad 1 "'tcp-bind' must be" 'migrate: { tcp-bind = "world"; };'
bad 1 "'disk-dirs' must be a list" 'disk-dirs = "/dev";'
bad 1 "'disk-dirs' must be a list of absolute" 'disk-dirs = [ "dev" ];'

step "syntax"
bad 2 'syntax error' $'reactors = 1;\nsocket "/x";'
refused 'No such file' vpoold --check-config -c "$T/none"

bad 2 'comment has no end' $'reactors = 1;\n/* socket = "/x";'
mkdir "$T/dir"
refused 'Is a directory' vpoold --check-config -c "$T/dir"

step "what the start would refuse on this machine"
echo 'socket-group = "no-such-group";' >"$T/conf"
refused "no-such-group' does not exist" check
echo "socket = \"$T/nowhere/s\";" >"$T/conf"
refused 'no directory' check
echo "log-file = \"$T/dir\";" >"$T/conf"
refused 'is a directory' check

echo 'migrate: { listen = "tcp:192.0.2.1:10811"; };' >"$T/conf"
refused 'migrate.listen: .192.0.2.1. is not a loopback address' check
refused 'set migrate.tcp-bind = "any"' vpoold -c "$T/conf" -s "$T/s" --state-dir "$T/state" --foreground
echo 'migrate: { listen = "tcp:192.0.2.1:10811"; tcp-bind = "any"; };' >"$T/conf"
ok check
echo 'migrate: { listen = "tcp:127.0.0.1:10811"; tcp-bind = "off"; };' >"$T/conf"
refused 'migration over TCP is off' check
echo "migrate: { listen = \"unix:$T/nowhere/s\"; };" >"$T/conf"
refused 'migrate.listen .*: there is no directory' check

step "a daemon does not start with a bad configuration"
echo 'reactors = 1000;' >"$T/conf"
refused 'not between' vpoold -c "$T/conf" -s "$T/s" --state-dir "$T/state" --foreground
[ ! -e "$T/s" ] || fail "a socket was left"
refused 'state directory' vpoold -c /dev/null -s "$T/s" --state-dir "$T/no/such/state" --foreground

step "bad options"
usage 'usage' vpoold --frobnicate
usage 'unexpected' vpoold extra
ok vpoold --help
ok vpoold --version
