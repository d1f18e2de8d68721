#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bench/gpu.sh where there is no GPU: its arguments, its skip, the table of goals out of rows that are known, and
# all of its way with stand-ins for nvidia-smi, the compilers and the benchmark.
set -euo pipefail

gpu=$SOURCE_DIR/bench/gpu.sh
fail() {
    echo "$*"
    exit 1
}

# expect <status> <command>...: its output is in ./out.
expect() {
    local wanted=$1 status=0
    shift
    "$@" >out 2>&1 || status=$?
    [[ $status == "$wanted" ]] || fail "$*: status $status, expected $wanted: $(cat out)"
}

expect 0 "$gpu" --help
grep -q -- '--table FILE' out || fail "--help says nothing of --table"
expect 2 "$gpu" --fast
grep -q 'what is --fast' out || fail "the wrong argument is not named"
expect 2 "$gpu" --table
expect 2 "$gpu" --table no-such-file

if command -v python3 >/dev/null && ! python3 -c 'import torch' 2>/dev/null; then
    expect 0 python3 "$SOURCE_DIR/bench/gpu/foreach.py" small <<<5
    grep -q '^#note small,torch: skipped (No module' out || fail "foreach.py without PyTorch: $(cat out)"
fi

# Stand-ins: no GPU first.
mkdir -p bin
printf '#!/bin/sh\nexit 9\n' >bin/nvidia-smi
chmod +x bin/nvidia-smi
PATH=$PWD/bin:$PATH expect 77 "$gpu"
grep -q '^skipped: no GPU' out || fail "no visible skip: $(cat out)"

# rows <share of copy> <cost of statistics> <times>: everything at the same distance from its goal.
rows() {
    awk -v share="$1" -v cost="$2" -v times="$3" '
        function row(name, who, bytes, us, gbps) { print name "," who ",1," bytes ",1," us ",1,1," gbps ",graph" }
        BEGIN {
            print "#set gpu a stand-in"
            print "measurement,contender,tensors,bytes,moved_bytes,us_p50,us_low,us_high,gbps,by"
            for (mib = 64; mib <= 1024; mib *= 4) {
                bytes = mib * 1048576
                goal = mib == 64 ? 85 : 95
                row("size", "copy", bytes, 100, mib == 1024 ? 4000 : 3000)
                for (i = 1; i <= 2; i++) {
                    who = i == 1 ? "pack_fp32" : "pack_bf16"
                    row("size", who, bytes, 100, 40 * (goal + share))
                    row("size", who "_sums", bytes, 100 + 3 + cost, 1)
                    if (mib < 1024) row("misaligned", who, bytes, 100, 40 * (80 + share))
                }
            }
            row("small", "each_memcpy", 4096000, 30 * times, 1); row("small", "pack_fp32", 4096000, 1, 1)
            row("160x1MiB", "each_memcpy", 167772160, 4 * times, 1); row("160x1MiB", "pack_fp32", 167772160, 1, 1)
            row("resnet50", "each_horovod", 102228128, 1.3 * times, 1); row("resnet50", "pack_fp32", 102228128, 1, 1)
        }'
}
rows 0.1 -0.1 1.01 >good
rows -0.1 0.1 0.99 >bad
expect 0 "$gpu" --table good
grep -q '; 19 goals met, 0 missed, 4 not measured$' out || fail "goals that are met: $(cat out)"
grep -q '^# highest copy bandwidth 4000 GB/s' out || fail "the highest copy: $(cat out)"
expect 0 "$gpu" --table bad
grep -q '; 0 goals met, 19 missed, 4 not measured$' out || fail "goals that are missed: $(cat out)"
{
    cat good
    for model in resnet50:102228128 gpt2:497759232 small:4096000; do
        echo "${model%:*},torch_foreach,1,${model#*:},1,26,1,1,1,graph"
        echo "${model%:*},pack_bf16_norm,1,${model#*:},1,10,1,1,1,graph"
    done
    echo "ring,ring_4,4,1,1,1,1,1,2801,graph"
} >whole
expect 0 "$gpu" --table whole
grep -q '; 23 goals met, 0 missed, 0 not measured$' out || fail "everything measured: $(cat out)"
: >empty
expect 1 "$gpu" --table empty

# All of the way. The compilers' stand-in leaves a benchmark that prints the rows.
cat >bin/nvidia-smi <<'END'
#!/bin/sh
case "$*" in
*compute_cap*) echo 9.0 ;;
*) echo "stand-in" ;;
esac
END
cat >bin/nvcc <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then output=$2; fi
    shift
done
[ -n "$output" ] || exit 0
printf '#!/bin/sh\nif [ "$1" = --list ]; then echo 5; else cat "%s"; exit ${BENCH_STATUS:-0}; fi\n' "$ROWS" >"$output"
chmod +x "$output"
END
chmod +x bin/nvcc
cp bin/nvcc bin/gcc
# shellcheck disable=SC2016 # $2 is the stand-in's
printf '#!/bin/sh\necho "#note $2,torch: skipped (a stand-in)"\n' >bin/python3
chmod +x bin/python3
export ROWS=$PWD/good BUILD=$PWD/build-gpu PATH=$PWD/bin:$PATH
expect 0 "$gpu"
grep -q '^#set gpu stand-in' out || fail "no heading: $(cat out)"
[[ $(grep -c ',torch: skipped' out) == 3 ]] || fail "PyTorch's skip cannot be seen: $(cat out)"
grep -q '; 19 goals met, 0 missed, 4 not measured$' out || fail "no table: $(cat out)"
BENCH_STATUS=1 expect 1 "$gpu" --no-torch
grep -q '^#note gpu_bench: status 1' out || fail "a benchmark that failed is not named: $(cat out)"
printf '#!/bin/sh\necho a compiler that fails\nexit 1\n' >bin/gcc
expect 1 "$gpu"
grep -q 'a compiler that fails' out || fail "the compiler's words are lost: $(cat out)"
