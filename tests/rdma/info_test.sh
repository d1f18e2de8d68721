#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo info finds the devices of the virtual machine, and the GID by which others reach it; kolo doctor says what is
# wrong with them.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

if [[ ${1:-} == inside ]]; then
    cd /tmp
    "$BIN_DIR/kolo" info | grep '^rdma'
    NCCL_IB_HCA=rxe1 "$BIN_DIR/kolo" info | grep '^rdma  *found'
    NCCL_IB_HCA=mlx5 "$BIN_DIR/kolo" info | grep '^rdma  *no '
    NCCL_IB_HCA=rxe1 "$BIN_DIR/kolo" doctor | grep RDMA
    "$BIN_DIR/kolo" doctor | grep RDMA && echo "doctor counts what is made of software" && exit 1
    chmod 600 /dev/infiniband/uverbs*
    setpriv --reuid 1000 --clear-groups "$BIN_DIR/kolo" info | grep '^rdma  *no '
    ip link set veth1 down
    NCCL_IB_HCA=rxe1 "$BIN_DIR/kolo" info | grep '^rdma  *no '
    NCCL_IB_HCA=rxe1 "$BIN_DIR/kolo" doctor >found && echo "doctor finds nothing wrong" && exit 1
    grep RDMA found
    exit
fi

# shellcheck source=tests/rdma/common.sh
source "$here/common.sh"
in_vm "$SOURCE_DIR/tests/rdma/info_test.sh" inside | tee out
expect() { grep -q "$1" out || { echo "not said: $1"; exit 1; }; }
expect '^rdma .*found; a rank uses rxe0 port 1, GID ::ffff:10.99.0.1 (index 1)'
expect '^rdma ports .*rxe0 port 1, RoCE, active, made of software'
expect 'uses rxe1 port 1, GID ::ffff:10.99.0.2 (index 1)'
expect 'rxe0 port 1: left out by NCCL_IB_HCA'
expect 'rxe1 port 1: down'
expect '^     RDMA: rxe1 port 1, GID ::ffff:10.99.0.2 (index 1)'
expect 'RDMA is not used'
expect 'no RDMA port can be used: rxe0 port 1: left out by NCCL_IB_HCA; rxe1 port 1: down'
expect 'rxe0 port 1: cannot open /dev/infiniband/uverbs0: Permission denied; rxe1 port 1: cannot open /dev/infiniband/uverbs1: P'
