#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Connections that break (rdma_faults.c), what is written while they do not, and that the kernel has
# nothing left of it.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

if [[ ${1:-} == inside ]]; then
    "$TEST_DIR/rdma_faults"
    exit
fi

in_one_process=1
# shellcheck source=tests/rdma/common.sh
source "$here/common.sh"
[[ -x $TEST_DIR/rdma_faults ]] || skip "built without libibverbs-dev or libcmocka-dev"
in_vm "$SOURCE_DIR/tests/rdma/faults_test.sh" inside
