#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Output of many ranks: whole lines, nothing lost, whoever reads it and however slowly.
# shellcheck disable=SC2016 # variables in single quotes belong to the ranks' shell
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
worker=$TEST_DIR/launcher_worker

# Lines of 4 ranks and both streams, written in odd pieces: every one whole, in its rank's order.
lines=2000
timeout 100 "$kolo" run -n 4 -- "$worker" lines $lines >out 2>&1
expect "lines: exit code" 0 $?
expect "lines: all there" $((8 * lines)) "$(wc -l <out)"
expect "lines: all whole" $((8 * lines)) "$(grep -cE '^\[([0-3])\] rank \1 (out|err) [0-9]+ x*#$' out)"
for rank in 0 1 2 3; do
    for stream in out err; do
        sed -nE "s/^\[$rank\] rank $rank $stream ([0-9]+) .*/\1/p" out >numbers
        seq 0 $((lines - 1)) | cmp -s - numbers || fail "lines of rank $rank $stream are not in order"
    done
done

# stdout and stderr stay apart.
run -n 2 -- "$worker" lines 50
expect "stdout" 100 "$(grep -c ' out ' out)"
expect "stdout alone" 0 "$(grep -c ' err ' out)"
expect "stderr" 100 "$(grep -c ' err ' err)"

# A reader that takes its time: 100,000 lines arrive.
slow_reader() {
    sleep 1
    while IFS= read -r -N 65536 block || [[ -n $block ]]; do
        printf '%s' "$block"
        sleep 0.001
    done
}
timeout 100 "$kolo" run -n 2 -- seq 50000 2>err | slow_reader >out
expect "slow reader: exit code" 0 "${PIPESTATUS[0]}"
expect "slow reader: lines" 100000 "$(wc -l <out)"
expect "slow reader: rank 1 complete" "$(seq 50000 | cksum)" "$(sed -n 's/^\[1\] //p' out | cksum)"

# A reader that stops: quiet, and the ranks end.
timeout 100 "$kolo" run -n 2 -- sh -c "while :; do echo y; done; : $mark" 2>err | head -n 3 >out
expect "closed reader: exit code" 141 "${PIPESTATUS[0]}"
expect "closed reader: lines" 3 "$(wc -l <out)"
expect "closed reader: quiet" "" "$(<err)"
none_marked || fail "ranks live on without a reader"
timeout 100 "$kolo" run -n 1 -- yes 2>err | head -n 3 >out
expect "closed reader of one rank" "141" "${PIPESTATUS[0]}"
expect "closed reader of one rank: quiet" "" "$(<err)"

# No stdout at all: what is lost is said, and does not go into whatever got its number.
timeout 20 "$kolo" run -n 2 -- echo unheard >&- 2>err
expect "no stdout: exit code" 74 $?
expect_text "no stdout" "cannot write to stdout: Bad file descriptor" "$(<err)"
timeout 20 "$kolo" run -n 2 -- true >&-
expect "no stdout, and nothing to say" 0 $?
timeout 20 "$kolo" bench allreduce -n 2 --min 8 --max 8 --seconds 0.01 >&- 2>err
expect "bench without stdout: exit code" 74 $?

# A full disk is no silent loss.
if [[ -w /dev/full ]]; then
    timeout 20 "$kolo" run -n 2 -- echo lost >/dev/full 2>err
    expect "full disk: exit code" 74 $?
    expect_text "full disk" "cannot write to stdout: No space left" "$(<err)"
fi

if [[ $(id -u) == 0 ]] && unshare --mount true 2>/dev/null; then
    mkdir -p full
    unshare --mount sh -c 'mount -t tmpfs -o size=16k none full && exec "$@"' sh \
        timeout 20 "$kolo" run -n 2 --output-filename full/x -- seq 1 100000 >/dev/null 2>err
    expect "copies on a full disk: exit code" 74 $?
    expect_text "copies on a full disk" "cannot write to the files of --output-filename: No space left" "$(<err)"
fi

# A last line without its end; a line longer than any buffer; no prefix; one rank.
run -n 2 -- printf end
expect "last line" $'[0] end\n[1] end' "$(sort <<<"$out")"
run -n 2 -- sh -c '[ $KOLO_RANK = 1 ] || head -c 300000 /dev/zero | tr "\0" z'
expect "long line" 300005 "$(wc -c <out)"
expect "long line: one line" 1 "$(wc -l <out)"
run -n 2 --no-prefix -- echo plain
expect "no prefix" $'plain\nplain' "$out"
run -n 1 -- printf alone
expect "one rank" "alone" "$out"

# What a child of a rank still has to say after the rank's end.
run -n 2 -- bash -c 'echo late > >(sleep 0.1; cat)'
expect "late output" $'[0] late\n[1] late' "$(sort <<<"$out")"

finish
