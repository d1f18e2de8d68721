#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# libkolo.so exports exactly the functions that <kolo/kolo.h> declares: one missing breaks users, one
# too many becomes an interface nobody meant.
set -euo pipefail

# After the preprocessor a public declaration has the visibility attribute; its name stands before
# the first parenthesis that follows.
declared=$("$CC" -E -P "$SOURCE_DIR/include/kolo/kolo.h" | tr '\n' ' ' | tr ';' '\n' |
    sed -n 's/.*visibility("default")))//p' | sed 's/ *(.*//; s/.*[ *]//' | sort -u)
exported=$(nm -D --defined-only "$BUILD_DIR/lib/libkolo.so" | awk '$2 != "A" { print $3 }' |
    sed 's/@.*//' | sort -u)
if [[ $declared != *kolo_allreduce* ]]; then
    echo "cannot read the declarations in kolo.h; found: $declared"
    exit 1
fi

if ! diff <(echo "$declared") <(echo "$exported"); then
    echo "< declared in kolo.h but not exported; > exported but not declared"
    exit 1
fi
