#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A bit that changes on its way between two ranks: without checksums the sum is wrong and nobody knows;
# with them both ranks are told, and no sum comes out.
# shellcheck source=../launcher/common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
member=$TEST_DIR/checksum_member

run -n 2 --transport tcp --no-prefix -- "$member"
expect "no fault" $'rank 0: 0 wrong\nrank 1: 0 wrong' "$(sort <<<"$out")"
FLIP=300001 run -n 2 --transport tcp --no-prefix -- "$member"
expect "unnoticed: code" 0 "$code"
expect_text "unnoticed" "rank 1: 1 wrong" "$out"

run -n 2 --transport tcp --checksum 1 --no-prefix -- "$member"
expect "checksums, no fault" $'rank 0: 0 wrong\nrank 1: 0 wrong' "$(sort <<<"$out")"
for flip in 3 62 64 300001; do # in a header, its checksum, a payload's beginning and middle
    FLIP=$flip run -n 2 --transport tcp --checksum 1 --no-prefix -- "$member"
    expect "byte $flip: code" 76 "$code"
    expect "byte $flip: both are told" 2 "$(grep -c '^rank [01]: KOLO_ERR_NETWORK: ' <<<"$out")"
    expect "byte $flip: what" 2 "$(grep -c 'changed on .*ethtool' <<<"$out")"
done
expect_text "the range is named" "of a message of" "$out"
expect_text "the way is named" "on their way from rank 0 (" "$out"

# TLS finds it by itself; the option is the same on all ranks.
run -n 2 --transport tcp --checksum 1 --encrypt 1 --no-prefix -- "$member"
expect "with encryption" $'rank 0: 0 wrong\nrank 1: 0 wrong' "$(sort <<<"$out")"
# shellcheck disable=SC2016 # the ranks' shell expands it
run -n 2 --transport tcp --no-prefix -- sh -c 'KOLO_CHECKSUM=$KOLO_RANK exec "$0"' "$member"
expect "differs: code" 64 "$code"
expect_text "differs" "KOLO_CHECKSUM" "$out"
finish
