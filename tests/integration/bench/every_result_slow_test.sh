#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every collective, dtype and op, over shared memory and TCP, with 1, 2, 3, 4 and 7 ranks, in place
# and not, through the program that users run: all results are right.
set -euo pipefail

kolo=$BIN_DIR/kolo
# Sizes around one element, one cache line, and more than one segment of a rank's slice.
sizes=(--min 4 --max 64K --factor 128)
status=0

# check <arguments>: the rows are printed, they are not empty, and nothing is wrong.
check() {
    local rows
    if ! timeout 120 "$kolo" bench "$@" --iters 2 --warmup 0 --format csv >rows.csv 2>err.txt; then
        echo "failed: kolo bench $*"
        tail -n 5 err.txt
        grep -v ',0$' rows.csv | head -n 5
        status=1
        return
    fi
    rows=$(awk -F, 'NR > 1 && $12 == "0"' rows.csv | wc -l)
    if [[ $rows == 0 || $rows != $(($(wc -l <rows.csv) - 1)) ]]; then
        echo "wrong or nothing: kolo bench $*: $rows right rows of $(($(wc -l <rows.csv) - 1))"
        status=1
    fi
    total=$((total + rows))
}

total=0
for ranks in 1 2 3 4 7; do
    for transport in shm tcp; do
        common=(-n "$ranks" --transport "$transport" "${sizes[@]}" --dtype all)
        for collective in allreduce reduce_scatter reduce; do
            check "$collective" "${common[@]}" --op all
            check "$collective" "${common[@]}" --op all --in-place
        done
        check allgather "${common[@]}"
        check allgather "${common[@]}" --in-place
        for collective in broadcast alltoall sendrecv; do
            check "$collective" "${common[@]}"
        done
        # Pointers that the library did not allocate travel by other ways.
        check allreduce "${common[@]}" --op sum --alloc malloc
        check allgather "${common[@]}" --alloc malloc
        check barrier -n "$ranks" --transport "$transport"
    done
done
echo "$total results right"
exit $status
