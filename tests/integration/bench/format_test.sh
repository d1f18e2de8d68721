#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What programs that read `kolo bench` rely on: columns, their values, exit codes, and that one
# process alone prints.
set -euo pipefail

kolo=$BIN_DIR/kolo
header=collective,transport,ranks,bytes,dtype,op,inplace,time_us_p50,time_us_p99,algbw_GBps,busbw_GBps,wrong
quick=(--seconds 0.01 --max 16K --factor 16)

fail() {
    echo "$*"
    exit 1
}

bench() {
    timeout 60 "$kolo" bench "$@"
}

# expect_code <code> <arguments>...
expect_code() {
    local expected=$1 code=0
    shift
    bench "$@" >out.txt 2>err.txt || code=$?
    [[ $code == "$expected" ]] || fail "kolo bench $*: exit code $code, expected $expected: $(cat err.txt)"
}

# CSV: each line has the header's fields, and they agree with each other.
for place in 0 1; do
    flags=()
    [[ $place == 1 ]] && flags=(--in-place)
    bench allreduce -n 2 "${quick[@]}" "${flags[@]}" --transport shm --format csv >rows.csv
    [[ $(head -n 1 rows.csv) == "$header" ]] || fail "header: $(head -n 1 rows.csv)"
    awk -F, -v place=$place '
        function near(a, b) { return a >= b * 0.98 - 0.00001 && a <= b * 1.02 + 0.00001 }
        NF != 12 { print "fields: " $0; bad = 1 }
        NR > 1 {
            rows++
            if ($1 != "allreduce" || $2 != "shm" || $3 != 2 || $5 != "fp32" || $6 != "sum" || $7 != place)
                { print "words: " $0; bad = 1 }
            if (!($8 > 0 && $9 >= $8)) { print "times: " $0; bad = 1 }
            if (!near($10, $4 / $8 / 1000)) { print "algbw: " $0; bad = 1 }
            if (!near($11, $10)) { print "busbw of 2 ranks: " $0; bad = 1 }
            if ($12 != "0") { print "wrong: " $0; bad = 1 }
            sizes = sizes " " $4
        }
        END {
            if (sizes != " 4 64 1024 16384") { print "sizes:" sizes; bad = 1 }
            exit bad
        }' rows.csv || fail "CSV"
done

# JSON says the same.
bench allgather -n 2 "${quick[@]}" --dtype int8 --format json >rows.json
if command -v python3 >/dev/null; then
    python3 - "$header" <<'PYTHON'
import json, sys
rows = json.load(open("rows.json"))
assert [r["bytes"] for r in rows] == [4, 64, 1024, 16384], rows
for row in rows:
    assert list(row) == sys.argv[1].split(","), row
    assert row["op"] == "none" and row["dtype"] == "int8", row
    assert row["inplace"] is False and row["wrong"] == 0, row
PYTHON
fi
[[ $(head -c 1 rows.json) == '[' && $(tail -n 1 rows.json) == ']' ]] || fail "JSON: $(cat rows.json)"

# The table, for people: what was measured, and the verdict at the end.
bench broadcast -n 2 "${quick[@]}" >table.txt
[[ $(tail -n 1 table.txt) == "# wrong results: 0" ]] || fail "table: $(cat table.txt)"
grep -q '^# kolo .*: broadcast, 2 ranks on 1 host' table.txt || fail "table: $(cat table.txt)"
! grep -q '^\[' table.txt || fail "prefixed lines: $(cat table.txt)"

# Sizes below one element per slice are rounded up, and measured once.
bench alltoall -n 2 --min 1 --max 16 --factor 2 --seconds 0.01 --dtype fp64 --format csv >small.csv
[[ $(tail -n +2 small.csv | cut -d, -f4) == 16 ]] || fail "rounded sizes: $(cat small.csv)"

# Without -n and without a launcher the world is this process.
bench barrier --seconds 0.01 --format csv | grep -q '^barrier,none,1,0,none,none,0,' || fail "world of one"

# What was measured, not what was asked for: on one host auto is shm.
for wanted in auto:shm shm:shm tcp:tcp; do
    KOLO_TRANSPORT=${wanted%:*} bench barrier -n 2 --seconds 0.01 --format csv >rows.csv
    grep -q "^barrier,${wanted#*:},2," rows.csv || fail "transport ${wanted%:*}: $(cat rows.csv)"
done
bench barrier -n 2 --seconds 0.01 --format csv | grep -q '^barrier,shm,2,' || fail "no transport said"

# Under a launcher -n may repeat the number of ranks, and nothing else.
timeout 60 "$kolo" run -n 2 --no-prefix -- "$kolo" bench barrier -n 2 --seconds 0.01 >nested.txt
[[ $(grep -c '^# kolo' nested.txt) == 1 ]] || fail "nested: $(cat nested.txt)"
code=0
timeout 60 "$kolo" run -n 2 -- "$kolo" bench barrier -n 3 >out.txt 2>err.txt || code=$?
[[ $code == 64 ]] || fail "-n 3 in a world of 2: exit code $code"
grep -q 'leave out -n' err.txt || fail "no remedy: $(cat err.txt)"

# Mistakes are refused before anything is started, once, with a remedy.
expect_code 64 allreduce -n 2 --dtype fp31
[[ $(grep -c -- --dtype err.txt) == 1 ]] || fail "said more than once: $(cat err.txt)"
expect_code 64 allreduce --op xor
expect_code 64
expect_code 0 --help
KOLO_WORLD_SIZE=2 KOLO_RANK=5 expect_code 65 barrier
KOLO_WORLD_SIZE=2 KOLO_RANK=1 KOLO_RENDEZVOUS=127.0.0.1:1 KOLO_INIT_TIMEOUT=1 expect_code 75 barrier

# No room for the results is not success.
if [[ -e /dev/full ]]; then
    code=0
    bench barrier --seconds 0.01 >/dev/full 2>err.txt || code=$?
    [[ $code != 0 ]] || fail "a full disk went unnoticed"
fi
echo "formats hold"
