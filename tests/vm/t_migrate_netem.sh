# Volumes move between two daemons over a network that delays and loses what is sent, has a limited rate, and is cut, in
# both directions or one: clients follow and verify each block. VPOOL_NETEM_LONG=1: also a cut that ends the move.
# kernel: floor
. "$(dirname "$0")/guest.sh"
need ip tc python3
modprobe -a veth sch_netem || fail "the kernel has no veth or no sch_netem"
python3 -c 'import nbd' 2>/dev/null || skip "no python3-libnbd here"
end_here() {
    local rc=$?
    for n in vpool0 vpool1; do ip netns delete $n 2>/dev/null; done
    (exit $rc)
    guest_end
}
trap end_here EXIT
step "over a network that is slow, loses, and is cut, volumes move and clients follow"
VPOOL_SLOW=1 VPOOL_BULK_MIB=8 python3 tests/vm/netem.py "$T" ${VPOOL_NETEM_LONG:+long} || fail "see above"
