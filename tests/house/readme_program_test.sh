#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# README.md's program and the commands after it, as they stand there, in the shell and with the home of
# somebody who has nothing yet. Only `./dev build` is not done again: the build is there. Then the
# commands of "Start it", the long ones cut short.
set -euo pipefail
unset "${!KOLO_@}" PKG_CONFIG_PATH LD_LIBRARY_PATH CMAKE_PREFIX_PATH

scratch=$(mktemp -d "$PWD/XXXXXX")
launcher=
trap 'kill $launcher 2>/dev/null || true; rm -rf "$scratch"' EXIT
export HOME=$scratch/home
mkdir -p "$HOME" "$scratch/clone" "$scratch/tools"
cd "$scratch/clone"

fail() {
    echo "FAIL: $*"
    exit 1
}

# block <section> <language>: the first such block of code below that heading.
block() {
    awk -v heading="## $1" -v fence="\`\`\`$2" '
        /^## / { here = $0 == heading }
        inside && /^```/ { exit }
        inside { print }
        here && $0 == fence { inside = 1 }' "$SOURCE_DIR/README.md"
}

block 'A program' c >program.c
block 'A program' sh >build.sh
block 'Start it' sh >start.sh
for part in program.c build.sh start.sh; do
    [[ -s $part ]] || fail "no $part in README.md"
done

# Nothing of this test may reach the machine, which root could let it.
grep -q 'cmake --install' build.sh || fail "README.md does not install"
# shellcheck disable=SC2016 # the words of README.md
if grep 'cmake --install' build.sh | grep -qvF -- '--prefix "$HOME/'; then
    fail "README.md installs to somewhere else than a folder of one's own"
fi

# The clone: what is built, and a ./dev that builds nothing.
ln -s "$BUILD_DIR" build
# shellcheck disable=SC2016 # expanded by the inner shell
printf '#!/bin/sh\n[ "$*" = build ]\n' >dev
flags=()
case $SANITIZE in
address) flags=(-fsanitize=address -fsanitize=undefined) ;;
thread) flags=(-fsanitize=thread) ;;
esac
printf '#!/bin/sh\nexec %s %s "$@"\n' "$CC" "${flags[*]}" >"$scratch/tools/cc"
chmod +x dev "$scratch/tools/cc"

# Both as one session: the second counts on what the first has exported.
# shellcheck disable=SC2016 # sed's pattern, and the inner shell
sed -e 's/--steps 200/--steps 2 --held-out-bytes 1024/' -e 's/--max 256M/--max 4K/' start.sh >quick.sh
cmp -s start.sh quick.sh && fail "the commands to cut short are no longer in README.md"
[[ -e $BIN_DIR/train_bytes ]] || sed -i '/train_bytes/d' quick.sh # without OpenBLAS
cat >session.sh <<'END'
set -ex
. ./build.sh >built.txt
command -v kolo >which.txt
. ./quick.sh >started.txt
mkdir project
cat >project/CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.22)
project(program LANGUAGES C)
find_package(kolo REQUIRED)
add_executable(program ../program.c)
target_link_libraries(program PRIVATE kolo::kolo)
CMAKE
cmake -S project -B project/build >cmake.txt
cmake --build project/build >>cmake.txt
project/build/program >alone.txt
END
PATH="$scratch/tools:/usr/local/bin:/usr/bin:/bin" timeout -k 5 100 sh session.sh 2>trace.txt ||
    fail "a command of README.md failed: $(cat trace.txt)"

[[ $(<which.txt) == "$HOME/.local/bin/kolo" ]] || fail "kolo is $(<which.txt)"
diff <(grep average built.txt | sort) <(printf '[%d] rank %d: average 1.5\n' 0 0 1 1 2 2 3 3) ||
    fail "README.md's program says something else than README.md"
[[ $(<alone.txt) == "rank 0: average 0" ]] || fail "without kolo run: $(<alone.txt)"
# 4 ranks over tcp and 3 lots of 2 ranks; the benchmark's last line.
[[ $(grep -c average started.txt) == 10 ]] || fail "$(cat started.txt)"
grep -qx '# wrong results: 0' started.txt || fail "kolo bench of README.md: $(cat started.txt)"
[[ ! -e $BIN_DIR/train_bytes ]] || grep -q 'step 2 ' started.txt || fail "train_bytes of README.md"

# A launcher of one's own: processes with the variables that README.md names, and no others, are ranks.
names=$(grep '^| a launcher of your own' "$SOURCE_DIR/README.md" | grep -o 'KOLO_[A-Z_]*' | sort | tr '\n' ' ')
[[ $names == "KOLO_RANK KOLO_RENDEZVOUS KOLO_TOKEN_FILE KOLO_WORLD_SIZE " ]] ||
    fail "README.md names other variables for a launcher: $names"
head -c 16 /dev/urandom | od -An -tx1 >token
export KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=127.0.0.1:$((22000 + $$ % 8000)) KOLO_TOKEN_FILE=token
KOLO_RANK=1 timeout -k 5 30 ./program >one.txt &
one=$!
code=0
KOLO_RANK=0 timeout -k 5 30 ./program >zero.txt || code=$?
wait "$one" || code=$?
[[ $code == 0 && $(<zero.txt) == "rank 0: average 0.5" && $(<one.txt) == "rank 1: average 0.5" ]] ||
    fail "exit code $code, $(cat zero.txt one.txt)"
