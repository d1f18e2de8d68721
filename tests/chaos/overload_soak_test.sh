#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Two minutes of far too much to do, with four times as many ranks as processors and as many programs that
# compute besides: nobody is taken for dead who only has to wait for its turn.
# shellcheck source=tests/integration/launcher/common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
ranks=$((4 * $(nproc)))
((ranks <= 32)) || ranks=32

burners=()
for ((i = 0; i < ranks; i++)); do
    bash -c "while :; do :; done # $mark" &
    burners+=($!)
done
for transport in shm tcp; do
    rm -rf notes
    mkdir notes
    "$kolo" run -n "$ranks" --transport "$transport" --timeout 60 --grace 5 -- "$TEST_DIR/chaos_rank" notes 5 work "$mark" >out 2>err
    expect "$transport: code" 124 "$?"
    expect "$transport: what ranks noticed" "" "$(cat notes/* | grep failed | grep -v "nothing happened")"
    expect_text "$transport" "the job did not end within the 60 s of --timeout" "$(tail -n 1 err)"
    [[ $(<err) != *silent* && $(<err) != *"said nothing"* ]] || fail "$transport: false alarm: $(<err)"
done
kill "${burners[@]}"
wait "${burners[@]}" 2>/dev/null

finish
