#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `kolo bench reducer`: every model and mode gives right results on 2 and 3 ranks, in shared memory and
# over TCP, and with every wire type; what programs read of it has the columns it is documented with.
set -euo pipefail

kolo=$BIN_DIR/kolo
header=model,mode,wire,transport,ranks,tensors,bytes,buckets,bucket_bytes,collectives,flat_us_p50,flat_malloc_us_p50,step_us_p50,each_us_p50,step_flat,step_flat_low,step_flat_high,step_malloc,step_malloc_low,step_malloc_high,each_step,each_step_low,each_step_high,exposed_us_p50,hidden_percent,wrong
quick=(--bucket 16M --iters 1 --rounds 1 --warmup 0 --format csv)

fail() {
    echo "$*"
    exit 1
}

bench() {
    timeout 100 "$kolo" bench reducer "$@"
}

# expect_rows <rows> <ranks> <transport> <wire>: of rows.csv
expect_rows() {
    [[ $(head -n 1 rows.csv) == "$header" ]] || fail "header: $(head -n 1 rows.csv)"
    awk -F, -v rows="$1" -v ranks="$2" -v transport="$3" -v wire="$4" '
        BEGIN {
            shape["resnet50"] = "161 102228128"; shape["gpt2"] = "148 497759232"
            shape["small"] = "1000 4096000"
        }
        NR == 1 { next }
        NF != 26 { print "fields: " $0; bad = 1 }
        $3 != wire || $4 != transport || $5 != ranks || $6 " " $7 != shape[$1] { print "words: " $0; bad = 1 }
        !($8 >= 1 && $11 > 0 && $12 > 0 && $13 > 0 && $14 > 0 && $15 > 0) { print "numbers: " $0; bad = 1 }
        $26 != "0" { print "wrong: " $0; bad = 1 }
        seen[$1 $2]++ { print "twice: " $0; bad = 1 }
        END { if (NR != rows + 1) { print NR " lines"; bad = 1 } exit bad }' rows.csv ||
        fail "$2 ranks, $3, $4"
}

for model in resnet50 gpt2 small; do
    bench -n 2 "${quick[@]}" --model "$model" --transport shm --overlap >rows.csv
    expect_rows 2 2 shm same
    awk -F, 'NR > 1 && ($24 == "" || $25 == "") { exit 1 }' rows.csv || fail "no overlap: $(cat rows.csv)"
done
for model in resnet50 small; do
    bench -n 3 "${quick[@]}" --model "$model" --transport shm >rows.csv
    expect_rows 2 3 shm same
    bench -n 2 "${quick[@]}" --model "$model" --transport tcp >rows.csv
    expect_rows 2 2 tcp same
done
for wire in bf16 fp16 fp8_e4m3 fp8_e5m2; do
    bench -n 2 "${quick[@]}" --model small --transport shm --wire "$wire" >rows.csv
    expect_rows 2 2 shm "$wire"
done

# JSON says the same; without a check there is no verdict.
bench --model small "${quick[@]}" --format json --no-check >rows.json
if command -v python3 >/dev/null; then
    python3 - "$header" <<'PYTHON'
import json, sys
rows = json.load(open("rows.json"))
assert [row["mode"] for row in rows] == ["views", "pack"], rows
for row in rows:
    assert list(row) == sys.argv[1].split(","), row
    assert row["wrong"] is None and row["hidden_percent"] is None, row
PYTHON
fi

# The sizes that peers are measured with: gradients as they get ready.
bench --sizes --model resnet50 >sizes.txt
[[ $(wc -l <sizes.txt) == 161 && $(head -n 1 sizes.txt) == 4000 ]] || fail "sizes: $(head -n 3 sizes.txt)"
bench --model small "${quick[@]}" --format table | tail -n 1 | grep -q ' 0$' || fail "table"
echo "reducers are right in every model and mode"
