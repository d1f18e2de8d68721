#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# on_device.sh PROGRAM [ARGUMENT...]: as a rank, on rxe0 or rxe1 in turn, so that its packets cross the cable; with GIDS=fd00
# by the address that begins so.
export NCCL_IB_HCA="=rxe$((KOLO_RANK % 2))"
if [[ ${GIDS:-} ]]; then
    NCCL_IB_GID_INDEX=$(basename "$(grep -l "^$GIDS" /sys/class/infiniband/rxe$((KOLO_RANK % 2))/ports/1/gids/* | head -n 1)")
    export NCCL_IB_GID_INDEX
fi
exec "$@"
