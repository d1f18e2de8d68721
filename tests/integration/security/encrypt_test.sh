#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# KOLO_ENCRYPT=1: of what ranks tell each other nothing can be read on its way; without it all can.
# shellcheck source=../launcher/common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"

# sends WHAT READ ARGUMENTS: how much is read of what rank 0 tells rank 1.
sends() {
    local what=$1 read=$2
    shift 2
    run -n 2 --transport tcp "$@" --no-prefix -- "$TEST_DIR/overheard_member"
    expect "$what: code" 0 "$code"
    expect "$what" "rank 0: $read of 2 read, 0 wrong"$'\n'"rank 1: 0 of 2 read, 0 wrong" "$(sort <<<"$out")"
}
sends "plain" 2
sends "encrypted" 0 --encrypt 1
sends "encrypted, several connections" 0 --encrypt 1 --streams 3
sends "encrypted, checksums wanted" 0 --encrypt 1 --checksum 1
finish
