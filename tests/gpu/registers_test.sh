#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What the compiler says of the kernels, for every architecture: nothing spills, nothing has a stack, and
# no kernel takes more registers than leave room for four blocks of 256 threads on a multiprocessor (64), or, of
# those that exchange among GPUs, one of 512 (128).
set -euo pipefail

report=reports
cat "$BUILD_DIR"/kernels/{pack,exchange}.fatbin.report >$report 2>/dev/null || true
if [[ ! -s $report ]]; then
    echo "skipped: the CUDA module is not built here (needs nvcc)"
    exit 77
fi

# complaints <report>
complaints() {
    awk '
        /Compiling entry function/ { kernel = $7 " " $9; kernels++ }
        /bytes stack frame/ && !/ 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/ { print kernel ": " $0 }
        /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); used = substr($0, RSTART + 5, RLENGTH - 5)
            if (used + 0 > (kernel ~ /kolo_(one_shot|two_shot|ring)_/ ? 128 : 64)) print kernel ": " used " registers" }
        END { if (kernels < 45) print "only " kernels + 0 " kernels are in the report" }' "$1"
}

# The check itself.
sed 's/ 0 bytes spill stores/ 8 bytes spill stores/; s/Used [0-9]* registers/Used 129 registers/' "$report" >broken
if [[ $(complaints broken | wc -l) -lt 50 || -z $(complaints /dev/null) ]]; then
    echo "the check itself is wrong: it finds nothing"
    exit 1
fi
found=$(complaints "$report")
echo "$(grep -c 'Compiling entry function' "$report") kernels, at most" \
    "$(grep -o 'Used [0-9]*' "$report" | sort -k2n | tail -1 | cut -d' ' -f2) registers"
if [[ -n $found ]]; then
    echo "$found"
    exit 1
fi
