#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The verbs stack of the virtual machine by itself: what the rdma transport builds on, and that packets
# between the two devices can be lost without harm.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

if [[ ${1:-} == inside ]]; then
    "$TEST_DIR/write_with_imm" rxe0 rxe1
    tc qdisc add dev veth0 root netem loss 1%
    "$TEST_DIR/write_with_imm" rxe0 rxe1
    exit
fi

# shellcheck source=tests/rdma/common.sh
source "$here/common.sh"
[[ -x $TEST_DIR/write_with_imm ]] || skip "built without libibverbs-dev"
in_vm "$SOURCE_DIR/tests/rdma/verbs_test.sh" inside | tee out
[[ $(grep -c '^ok:' out) == 16 ]]
