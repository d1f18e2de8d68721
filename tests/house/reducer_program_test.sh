#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The training loop of docs/REDUCER.md, as it stands there: it compiles without a warning, and all ranks
# end with the parameters that the document tells, with one, two and four of them.
set -euo pipefail

fail() {
    echo "FAIL: $*"
    exit 1
}

awk '/^## / { here = $0 == "## A training loop" }
    inside && /^```/ { exit }
    inside { print }
    here && $0 == "```c" { inside = 1 }' "$SOURCE_DIR/docs/REDUCER.md" >loop.c
[[ -s loop.c ]] || fail "no training loop in docs/REDUCER.md"
flags=()
case $SANITIZE in
address) flags=(-fsanitize=address -fsanitize=undefined) ;;
thread) flags=(-fsanitize=thread) ;;
esac
"$CC" -std=c17 -Wall -Wextra -Werror "${flags[@]}" -I "$SOURCE_DIR/include" loop.c \
    -L "$BUILD_DIR/lib" -lkolo -Wl,-rpath,"$BUILD_DIR/lib" -o loop || fail "it does not compile"
told=$(grep -o 'weights\[7\] [0-9.]*, bias [0-9.]*$' "$SOURCE_DIR/docs/REDUCER.md") || fail "no result is told"
for ranks in 1 2 4; do
    timeout -k 5 60 "$BIN_DIR/kolo" run -n "$ranks" -- ./loop >out || fail "$ranks ranks: $(cat out)"
    [[ $(grep -cF -- "$told" out) == "$ranks" ]] || fail "$ranks ranks: '$told' expected from each: $(cat out)"
done
