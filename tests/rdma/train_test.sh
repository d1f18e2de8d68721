#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Training over RDMA ends with the very losses of training over TCP; and when a rank is killed in it, the
# others name it and the job ends.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=tests/integration/train/common.sh
source "$SOURCE_DIR/tests/integration/train/common.sh"

# over TRANSPORT RANKS ARGUMENT...
over() {
    local transport=$1 ranks=$2
    shift 2
    timeout -k 5 100 "$BIN_DIR/kolo" run -n "$ranks" --transport "$transport" -- \
        bash "$here/on_device.sh" "$BIN_DIR/train_bytes" "${model[@]}" "$@"
}

if [[ ${1:-} == inside ]]; then
    cd /tmp
    make_text text
    for transport in rdma tcp; do
        over "$transport" 2 --steps 12 --csv "$transport.csv" text >"$transport.log" 2>&1 ||
            fail "over $transport: $(tail -n 3 "$transport.log")"
    done
    same_losses rdma.csv tcp.csv 0 || fail "RDMA gives other losses than TCP"

    over rdma 2 --steps 1000000 --checkpoint state.ckpt --checkpoint-every 5 text >killed.log 2>&1 &
    run=$!
    for _ in $(seq 600); do
        [[ -e state.ckpt ]] && break
        sleep 0.1
    done
    [[ -e state.ckpt ]] || fail "no checkpoint: $(tail -n 3 killed.log)"
    for pid in $(pgrep -f checkpoint-every); do
        [[ $(cat "/proc/$pid/comm") == train_bytes ]] && worker=$pid
    done
    kill -9 "$worker"
    code=0
    wait "$run" || code=$?
    [[ $code == 76 ]] || fail "exit code $code instead of 76: $(tail -n 3 killed.log)"
    grep -o 'KOLO_ERR_PEER_LOST: .*rank [01].*SIGKILL' killed.log || fail "the survivor does not name the lost rank"

    code=0
    NCCL_IB_HCA=none0 "$BIN_DIR/kolo" run -n 2 --transport rdma -- "$BIN_DIR/hello_allreduce" >none.log 2>&1 || code=$?
    [[ $code != 0 ]] || fail "RDMA was demanded and there was none"
    grep -o 'KOLO_TRANSPORT=rdma: no RDMA port can be used: rxe0 port 1: left out by NCCL_IB_HCA' none.log |
        head -n 1 | grep . || fail "no reason: $(cat none.log)"
    exit
fi

# shellcheck source=tests/rdma/common.sh
source "$here/common.sh"
in_vm "$SOURCE_DIR/tests/rdma/train_test.sh" inside
