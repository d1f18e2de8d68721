#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Buffers in a GPU's memory, whose pinned chunks network cards reach: every collective, with the stand-in for the
# driver (tests/nccl/staging_test.c).
set -euo pipefail

# shellcheck source=tests/rdma/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ -x $TEST_DIR/staging_test ]] || skip "built without the CUDA module or libcmocka-dev"
export KOLO_TRANSPORT=rdma
in_vm "$TEST_DIR/staging_test"
