#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# clang-tidy has nothing to say about any file. Each is looked at once for what it is now (clang_tidy.sh);
# in a fresh build some at a time, those that were changed last first, because all take some minutes: that
# is ./dev lint. The check must also find what is planted here.
set -euo pipefail

command -v "clang-tidy-${LLVM_VERSION:-14}" >/dev/null || { echo "skipped: needs clang-tidy-${LLVM_VERSION:-14}"; exit 77; }
command -v ninja >/dev/null || { echo "skipped: needs ninja"; exit 77; }
[[ -e $BUILD_DIR/build.ninja ]] || { echo "skipped: needs a build by ninja"; exit 77; }
[[ -z $SANITIZE ]] || { echo "the same files are looked at in the ordinary build"; exit 0; }

# ---- a small tree with a mistake: found each time, until it is mended, and then not looked at again
rm -rf tree
mkdir -p tree/{base,kernels,collectives,runtime,launcher,bench,examples,include,tests/house,build}
cp "$SOURCE_DIR/tests/house/clang_tidy.sh" tree/tests/house/
cp "$SOURCE_DIR/.clang-tidy" tree/
echo 'int planted_value(int given);' >tree/base/planted.h
printf '%s\n' '#include "planted.h"' 'int planted_value(int given) { int value; return given > 0 ? value : 0; }' \
    >tree/base/planted.c
cat >tree/build/build.ninja <<'END'
rule cc
  command = cc -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
build planted.o: cc ../base/planted.c
END
rm -f tree/build/.ninja_deps
ninja -C tree/build >/dev/null
ninja -C tree/build -t compdb cc >tree/build/compile_commands.json
look() { bash tree/tests/house/clang_tidy.sh tree/build >found 2>&1; }
for again in once twice; do
    ! look || { echo "a mistake is not found ($again)"; exit 1; }
    grep -q 'planted.c.*clang-analyzer-core' found || { echo "what is found is not said ($again):"; cat found; exit 1; }
done
sed -i 's/int value;/int value = given;/' tree/base/planted.c
look || { echo "found in a file without mistakes:"; cat found; exit 1; }
cp tree/build/clang-tidy/base%planted.c before
[[ -s before ]] || { echo "a clean file is looked at again each time"; exit 1; }
echo '#define PLANTED 1' >>tree/base/planted.h
look
! cmp -s before tree/build/clang-tidy/base%planted.c || { echo "a change of a header does not count"; exit 1; }

# ---- this tree
bash "$SOURCE_DIR/tests/house/clang_tidy.sh" "$BUILD_DIR" 30
