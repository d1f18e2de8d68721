#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The rdma transport keeps the contract that all transports keep.
set -euo pipefail

in_one_process=1
# shellcheck source=tests/rdma/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ -x $TEST_DIR/rdma_conformance ]] || skip "built without libibverbs-dev or libcmocka-dev"
in_vm "$TEST_DIR/rdma_conformance"
