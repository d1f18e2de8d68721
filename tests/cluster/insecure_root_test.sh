#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A job without a token on two hosts, however its ranks are started: they refuse to listen to the
# network, and say what to do; with KOLO_INSECURE=1 they train.
# shellcheck disable=SC2317 # functions are called by name
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
trap hosts_down EXIT
hosts_up 2
install_for_all
"$BIN_DIR/kolo" --help >"$place/text"
train=("$place/bin/train_bytes" --steps 2 --layers 1 --width 32 --heads 2 --context 32 --held-out-bytes 512 --threads 1 "$place/text")
unset "${!KOLO_@}"
export KOLO_INIT_TIMEOUT=20 KOLO_TIMEOUT=20

# The variables of rank $1.
by_hand() { echo "KOLO_RANK=$1 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=10.77.0.1:$port"; }
as_torchrun() { echo "RANK=$1 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=10.77.0.1 MASTER_PORT=$port"; }
as_pods() { echo "KUBERNETES_SERVICE_HOST=10.96.0.1 JOB_COMPLETION_INDEX=$1 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=10.77.0.1:$port HOSTNAME=train-$1 KOLO_METRICS_PORT=0"; }

# start STYLE INSECURE COMMAND...: a rank on each host; codes in $codes, words in rank0 and rank1.
port=7100
start() {
    local style=$1 insecure=$2 rank variables pids=()
    shift 2
    port=$((port + 20))
    for rank in 0 1; do
        read -ra variables < <("$style" $rank)
        on "host$((rank + 1))" env "${variables[@]}" KOLO_INSECURE="$insecure" timeout -k 5 60 "$@" >"rank$rank" 2>&1 &
        pids[rank]=$!
    done
    codes=
    for rank in 0 1; do
        wait "${pids[rank]}"
        codes+="${codes:+ }$?"
    done
}

refuses() { # STYLE COMMAND...
    local rank
    start "$1" 0 "${@:2}"
    [[ $codes =~ ^[1-9][0-9]*' '[1-9][0-9]*$ && $codes != *124* ]] || fail "$1, no token: codes $codes"
    for rank in 0 1; do
        expect_text "$1, no token, rank $rank" "the job has no token" "$(<"rank$rank")"
        expect_text "$1, no token, rank $rank" "set KOLO_TOKEN_FILE" "$(<"rank$rank")"
        expect_text "$1, no token, rank $rank" "KOLO_INSECURE=1" "$(<"rank$rank")"
    done
}

trains() { # STYLE COMMAND...
    start "$1" 1 "${@:2}"
    expect "$1, KOLO_INSECURE=1: codes" "0 0" "$codes"
    expect_text "$1, KOLO_INSECURE=1" "over 2 ranks" "$(<rank0)"
    [[ $codes == "0 0" ]] || head -n 5 rank0 rank1
}

for style in by_hand as_torchrun as_pods; do
    refuses $style "${train[@]}"
    trains $style "${train[@]}"
done
# Where kolo run is the pods' command.
refuses as_pods "$kolo" run -- "${train[@]}"
trains as_pods "$kolo" run -- "${train[@]}"

# Whoever was not told that this is meant takes no part.
port=$((port + 20))
read -ra variables < <(by_hand 0)
on host1 env "${variables[@]}" KOLO_INSECURE=1 KOLO_INIT_TIMEOUT=3 timeout -k 5 60 "${train[@]}" >rank0 2>&1 &
waiting=$!
read -ra variables < <(by_hand 1)
on host2 env "${variables[@]}" timeout -k 5 60 "${train[@]}" >rank1 2>&1 && fail "rank 1 took part"
expect_text "rank 1 was not told" "beyond this host, but the job has no token" "$(<rank1)"
wait $waiting && fail "rank 0 went on alone"

finish
