#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# on_device.sh PROGRAM [ARGUMENT...]: as a rank, on rxe0 or rxe1 in turn, so that its packets cross the cable.
export NCCL_IB_HCA="=rxe$((KOLO_RANK % 2))"
exec "$@"
