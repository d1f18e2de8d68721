#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What gzip -9 and xz -9 need for the very bytes on which train_bytes measures its bits per byte: the
# held-out files one after the other, as one stream. Arguments go to train_bytes, and must be those
# of the training as far as they name files or --held-out-bytes.
#
#     examples/compare_compressors.sh build/bin/train_bytes /usr/include
#
# Both sides as they are: the compressors start knowing nothing, the model has seen other files but
# its own size is not counted.
set -euo pipefail

if [[ $# == 0 ]]; then
    echo "usage: $0 TRAIN_BYTES [its arguments]" >&2
    exit 64
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

program=$1
shift
"$program" --export-held-out "$scratch/held_out" "$@"
bytes=$(wc -c <"$scratch/held_out")
for compressor in "gzip -9" "xz -9"; do
    # shellcheck disable=SC2086 # a command and its option
    compressed=$($compressor --stdout "$scratch/held_out" | wc -c)
    awk -v name="$compressor" -v from="$bytes" -v to="$compressed" \
        'BEGIN { printf "%-7s %.4f bits per byte (%d of %d bytes)\n", name, 8 * to / from, to, from }'
done
