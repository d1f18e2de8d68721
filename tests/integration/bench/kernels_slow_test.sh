#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo bench kernels: a row of sums for every variant, dtype, number of sources, place and kind of
# store, and six rows of gradient fusion for every place, each with two positive numbers and their ratio (0.00 under a sanitizer); and no arguments are taken for options it does not have.
set -euo pipefail

"$BIN_DIR/kolo" bench kernels >rows.txt
variants=$(awk 'NR > 1 { print $1 }' rows.txt | sort -u | wc -l)
right=$(awk 'NR > 1 && NF == 10 && $8 > 0 && $9 > 0 && $10 >= 0' rows.txt | wc -l)
if ((variants < 1 || right != variants * 5 * 3 * 4 * 2 + 6 * 4 || right + 1 != $(wc -l <rows.txt))); then
    echo "$right right rows of $variants variants:"
    head -n 20 rows.txt
    exit 1
fi

code=0
"$BIN_DIR/kolo" bench kernels --max 1M >out.txt 2>&1 || code=$?
if [[ $code != 64 ]] || ! grep -q 'takes no arguments' out.txt; then
    echo "an argument it does not have: exit code $code"
    cat out.txt
    exit 1
fi
