#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/gpu/run.sh where there is no GPU: what it says and returns when there is none, when the build or a
# test fails, when one is skipped, and when all is well, with stand-ins for everything that it starts.
set -euo pipefail

run=$SOURCE_DIR/tests/gpu/run.sh
mkdir -p bin
export PATH=$PWD/bin:$PATH BUILD=$PWD/build-gpu
fail() {
    echo "$*: $(cat out)"
    exit 1
}
# stand_in <name> <script>
stand_in() {
    printf '#!/bin/sh\n%s\n' "$2" >"bin/$1"
    chmod +x "bin/$1"
}
# expect <status> <last line>
expect() {
    local status=0
    "$run" "$PWD/logs" >out 2>&1 || status=$?
    [[ $status == "$1" ]] || fail "status $status, expected $1"
    [[ $(tail -n 1 out) == "$2"* ]] || fail "the last line is not $2"
}

stand_in nvidia-smi 'exit 9'
expect 1 'gpu tests: FAILED'
grep -q '^no GPU here' out || fail "a machine without a GPU is not named"

# The compilers' stand-in leaves a test that does as $RESULTS says of it: reference=1 has it fail.
stand_in nvidia-smi 'case "$*" in *name*) echo stand-in, 1, 9.0 ;; *) echo 9.0 ;; esac'
cat >bin/gcc <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then output=$2; fi
    shift
done
cat >"$output" <<'TEST'
#!/bin/sh
name=$(basename "$0" _gpu_test)
echo "the last words of $name"
status=$(echo "$RESULTS" | tr ' ' '\n' | sed -n "s/^$name=//p")
exit "${status:-0}"
TEST
chmod +x "$output"
END
chmod +x bin/gcc
cp bin/gcc bin/nvcc
# shellcheck disable=SC2016 # they are the stand-in's
stand_in compute-sanitizer 'shift 4; [ "$2" = --quick ] && exec "$@"'

export RESULTS=''
expect 0 'gpu tests: passed'
grep -q '^build: passed' out || fail "no line of the build"
grep -Eq '^pack: passed \([0-9]+ s\): the last words of pack$' out || fail "no line of a test that passed"
grep -q '^memcheck-reference: passed' out || fail "the memory check did not run"
! grep -q '^nccl-ranks' out || fail "ranks on GPUs that are not there"
cp bin/nvidia-smi one_gpu
sed -i 's/echo stand-in, 1, 9.0/&; &/' bin/nvidia-smi
expect 0 'gpu tests: passed'
grep -Eq '^nccl-ranks: (passed|skipped)' out || fail "no ranks on two GPUs"
mv one_gpu bin/nvidia-smi
RESULTS='reference=1' expect 1 'gpu tests: FAILED'
grep -q '^reference: FAILED (status 1' out || fail "the test that failed is not named"
grep -q '^pack: passed' out || fail "one that failed kept another from running"
RESULTS='pack=77' expect 1 'gpu tests: FAILED' # it saw no GPU where there is one
grep -q '^pack: skipped: the last words of pack' out || fail "the test that was skipped is not named"
printf '#!/bin/sh\necho a compiler that fails\nexit 1\n' >bin/gcc
rm -r build-gpu
expect 1 'gpu tests: FAILED'
grep -q 'a compiler that fails' out || fail "the compiler's words are lost"
