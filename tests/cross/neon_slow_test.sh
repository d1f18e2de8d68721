#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The tests of the kernels on 64-bit Arm: compiled by a cross compiler, run by an emulator, so that the
# NEON variant gives the bits of the reference also where all machines are x86.
set -euo pipefail

# An Arm machine runs the same tests as unit tests.
for program in aarch64-linux-gnu-gcc qemu-aarch64; do
    if ! command -v "$program" >/dev/null; then
        echo "skipped: no $program (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user)"
        exit 77
    fi
done
if ! echo 'int main(void) { return 0; }' | aarch64-linux-gnu-gcc -static -x c - -o probe 2>probe.txt; then
    echo "skipped: aarch64-linux-gnu-gcc links no program (Debian: libc6-dev-arm64-cross)"
    exit 77
fi

cd "$SOURCE_DIR"
folder=$OLDPWD
flags=(-std=c17 -D_GNU_SOURCE -O3 -ffp-contract=off -static -Wall -Wextra -Werror -Wno-missing-field-initializers
    -I tests/cross/shim -I . -I include)
shopt -s extglob
sources=(kernels/!(device).c kernels/cpu/*.c base/status.c tests/unit/kernels/reduction_check.c) # GPUs are a module's
status=0
for test in reduce sum cast convert pack norm; do
    aarch64-linux-gnu-gcc "${flags[@]}" "${sources[@]}" "tests/unit/kernels/${test}_test.c" -lm -o "$folder/$test"
    if ! qemu-aarch64 "$folder/$test" >"$folder/$test.txt" 2>&1; then
        echo "failed under qemu-aarch64: ${test}_test"
        tail -n 5 "$folder/$test.txt"
        status=1
    fi
done
# The variant was there, and not left out by an #if.
nm "$folder/reduce" | grep ' kolo__cpu_neon$' >/dev/null || { echo "no NEON variant in the program"; status=1; }
exit $status
