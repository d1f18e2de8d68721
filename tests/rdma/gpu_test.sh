#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Buffers in a GPU's memory, with the stand-in for the CUDA driver. Collectives, whose pinned chunks network cards reach
# (tests/nccl/staging_test.c); and messages (rdma_gpus.c): straight, with a stand-in for the registration that Soft-RoCE
# lacks, and through the host as it says itself that it lacks it.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

if [[ ${1:-} == inside ]]; then
    cd /tmp
    export KOLO_LOG=info
    LD_PRELOAD=$TEST_DIR/libstandin_dma_buf.so "$TEST_DIR/rdma_gpus" straight 2>said || { cat said; exit 1; }
    grep 'RDMA: long messages go straight from and into memory of GPU 1' said | sort -u
    "$TEST_DIR/rdma_gpus" by_host 2>said || { cat said; exit 1; }
    grep 'RDMA: messages of GPU 1 go through memory of the host: rxe[01]: no dma-buf (its driver takes none)' said | sort -u
    KOLO_LOG=error KOLO_TRANSPORT=rdma "$TEST_DIR/staging_test"
    exit
fi

# shellcheck source=tests/rdma/common.sh
source "$here/common.sh"
[[ -x $TEST_DIR/staging_test && -x $TEST_DIR/rdma_gpus ]] || skip "built without the CUDA module or libcmocka-dev"
in_vm "$SOURCE_DIR/tests/rdma/gpu_test.sh" inside
