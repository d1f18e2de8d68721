#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The public header compiles alone, without a warning, in old and new C and C++, with every compiler
# here, and takes being included twice.
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The cast from int to an enum would not compile in C++ if the header's types went wrong.
cat >"$scratch/alone.c" <<'END'
#include <kolo/kolo.h>
#include <kolo/kolo.h>
int main(void)
{
    kolo_init_options options = {sizeof(kolo_init_options), 0, 0, NULL, NULL};
    return kolo_dtype_bytes(KOLO_FP32) == options.size;
}
END
cp "$scratch/alone.c" "$scratch/alone.cpp"

compile() {
    echo "$*"
    "$@" -I"$SOURCE_DIR/include" -Wall -Wextra -Wpedantic -Werror -c -o /dev/null
}
for compiler in gcc clang clang-14; do
    command -v "$compiler" >/dev/null || continue
    for standard in c99 c11 c17; do
        compile "$compiler" "$scratch/alone.c" "-std=$standard" -Wstrict-prototypes
    done
    for standard in c++11 c++17 c++20; do
        compile "$compiler" "$scratch/alone.cpp" "-std=$standard"
    done
done
